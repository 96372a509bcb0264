"""A real Apache Kafka broker for tests: one node (KRaft) on loopback, without Docker. It needs java and mvn on the path.

The jars come from Maven Central, once, into a cache folder (``MAILTIDE_TEST_CACHE``, else ``~/.cache/mailtide-tests``).
The first broker that stops cleanly leaves a class archive there, with which later ones start in half the time.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.server_process import ServerProcess
from tests.support.services import require

VERSION = "4.3.1"
COPY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
PROJECT = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>mailtide.tests</groupId> <artifactId>kafka</artifactId> <version>1</version> <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId> <artifactId>kafka_2.13</artifactId> <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId> <artifactId>log4j-slf4j-impl</artifactId> <version>2.25.4</version>
    </dependency>
  </dependencies>
</project>
"""
READY = b"Kafka Server started"
START_SECONDS = 180.0
LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c %m%n
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = info
"""
SETTINGS: dict[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": False,
    # One node holds every copy of what brokers keep for themselves.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    # Groups form at once, and a test may have members that are missed within a second.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 500,
    # A broker that was killed is taken back after two seconds instead of twelve.
    "broker.heartbeat.interval.ms": 250,
    "broker.session.timeout.ms": 1000,
    # Small.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
}


@dataclass(frozen=True, slots=True)
class Login:
    """Names and passwords that a broker's SASL listeners let in, by PLAIN and by SCRAM-SHA-256 alike."""

    users: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Addresses:
    """host:port of the listeners. Those but ``plain`` are there only where the broker was given what they need."""

    plain: str
    controller: str
    tls: str
    sasl: str
    sasl_tls: str


@dataclass
class Broker:
    """One broker. ``start``, ``stop`` and ``kill`` keep its data and its ports, so clients find it again."""

    folder: Path
    authority: Authority | None = None
    login: Login | None = None

    def __post_init__(self) -> None:
        jars()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = ServerProcess(self.folder / "broker.log")
        self.addresses = Addresses(*(f"127.0.0.1:{port}" for port in free_ports(5)))
        (self.folder / "log4j2.properties").write_text(LOGGING)
        settings = {**SETTINGS, "log.dirs": self.folder / "data", **self._listeners()}
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format()

    @property
    def address(self) -> str:
        """Of the listener that neither encrypts nor asks for a password."""
        return self.addresses.plain

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> Broker:
        """Returns once the broker takes requests; raises ``RuntimeError`` with its last words when it does not come up."""
        log = self.folder / "broker.log"
        before = log.stat().st_size if log.exists() else 0
        self._server.start(
            self._java("kafka.Kafka", str(self._settings), archive=True),
            lambda: READY in log.read_bytes()[before:],
            START_SECONDS,
        )
        return self

    def stop(self) -> None:
        """Ends it cleanly."""
        self._server.end(signal.SIGTERM)
        if self._new_archive.exists():
            arriving = jars() / f"classes.{uuid.uuid4().hex}"
            shutil.move(self._new_archive, arriving)
            arriving.replace(jars() / "classes.jsa")

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._server.end(signal.SIGKILL)

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _new_archive(self) -> Path:
        return self.folder / "classes.jsa"

    def _listeners(self) -> dict[str, object]:
        protocols = {"PLAINTEXT": self.addresses.plain, "CONTROLLER": self.addresses.controller}
        settings: dict[str, object] = {"controller.quorum.bootstrap.servers": self.addresses.controller}
        if self.authority is not None:
            protocols["SSL"] = self.addresses.tls
            certificate = self.authority.issue(self.folder / "tls")
            pem = self.folder / "tls" / "broker.pem"
            pem.write_bytes(certificate.key.read_bytes() + certificate.chain.read_bytes())
            settings |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": pem}
        if self.login is not None:
            protocols["SASL_PLAINTEXT"] = self.addresses.sasl
            if self.authority is not None:
                protocols["SASL_SSL"] = self.addresses.sasl_tls
            known = " ".join(f'user_{name}="{password}"' for name, password in self.login.users.items())
            modules = {
                "plain": f"org.apache.kafka.common.security.plain.PlainLoginModule required {known};",
                "scram-sha-256": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            }
            settings["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256"
            settings |= {
                f"listener.name.{listener.lower()}.{mechanism}.sasl.jaas.config": module
                for listener in protocols
                if listener.startswith("SASL")
                for mechanism, module in modules.items()
            }
        settings["listeners"] = ",".join(f"{name}://{address}" for name, address in protocols.items())
        known_to_kafka = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
        settings["listener.security.protocol.map"] = ",".join(
            f"{name}:{name if name in known_to_kafka else 'PLAINTEXT'}" for name in protocols
        )
        return settings

    def _format(self) -> None:
        users = self.login.users.items() if self.login is not None else ()
        scram = [
            word
            for name, password in users
            for word in ("--add-scram", f"SCRAM-SHA-256=[name={name},password={password},iterations=4096]")
        ]
        # A leading dash would be read as an option.
        cluster = base64.urlsafe_b64encode(b"test" + uuid.uuid4().bytes[:12]).decode().rstrip("=")
        command = self._java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(self._settings), *scram
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"the broker's folder could not be set up:\n{done.stdout}{done.stderr}")

    def _java(self, *program: str, archive: bool = False) -> list[str]:
        shared = jars() / "classes.jsa"
        classes: list[str] = []
        if shared.exists():
            classes = [f"-XX:SharedArchiveFile={shared}"]
        elif archive:
            classes = [f"-XX:ArchiveClassesAtExit={self._new_archive}"]
        # The archive holds only for the same jars in the same order.
        path = ":".join(sorted(str(jar) for jar in jars().glob("*.jar")))
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xlog:disable", "-Xmx256m"]
        return ["java", *quick, *classes, logging, "-cp", path, *program]


@contextlib.contextmanager
def running(folder: Path, authority: Authority | None = None, login: Login | None = None) -> Iterator[Broker]:
    """A broker for the length of a ``with``. Skips the test where Java or Maven are missing."""
    require("java", shutil.which("java") is not None, "apt-get install default-jre-headless")
    require("mvn", shutil.which("mvn") is not None, "apt-get install maven")
    broker = Broker(folder, authority, login)
    try:
        yield broker.start()
    finally:
        broker.stop()


def jars() -> Path:
    """The folder with Kafka and what it needs, fetched when it is not there yet."""
    cache = Path(os.environ.get("MAILTIDE_TEST_CACHE", "~/.cache/mailtide-tests")).expanduser()
    folder = cache / f"kafka-{VERSION}"
    if not folder.is_dir():
        arriving = cache / f".kafka-{uuid.uuid4().hex}"
        arriving.mkdir(parents=True)
        project = arriving / "pom.xml"
        project.write_text(PROJECT.format(version=VERSION))
        maven = [
            "mvn",
            "-B",
            "-q",
            "-Dstyle.color=never",
            "-f",
            str(project),
            COPY_PLUGIN,
            "-DincludeScope=runtime",
            f"-DoutputDirectory={arriving}",
        ]
        if subprocess.run(maven, check=False, timeout=1200).returncode != 0:
            shutil.rmtree(arriving)
            require(f"Kafka {VERSION}", False, "run the test where Maven can fetch packages; it keeps them")
        try:
            arriving.rename(folder)
        except OSError:  # another test run was quicker
            shutil.rmtree(arriving)
    return folder
