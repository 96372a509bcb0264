"""A real IMAP server for tests: Dovecot on loopback and free ports, with TLS, accounts, and mail put into its Maildirs.

It is Debian's package ``dovecot-imapd``. Started by root, its mail belongs to the system's user ``mail``, as Dovecot does
not serve root's; started by anybody else it runs with that user's rights alone.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import hmac
import itertools
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from pipeline.config.feed_settings import ImapFeedSettings, SecretSettings
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.services import require

PLACES = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
PROGRAM = shutil.which("dovecot", path=PLACES)
DOVEADM = shutil.which("doveadm", path=PLACES)
HOW = "apt-get install dovecot-imapd"
HOST = "127.0.0.1"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
MAIL_USER = "mail"
TOKEN_KEY = b"signs the tokens of these tests"

CONFIGURATION = """
base_dir = {root}/run
state_dir = {root}/run
log_path = {root}/log
protocols = imap
listen = {host}
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
ssl = yes
ssl_cert = <{root}/certificate/chain.pem
ssl_key = <{root}/certificate/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2
auth_failure_delay = 0
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{root}/mail/%u
mail_uid = {owner}
mail_gid = {group}
mail_fsync = never
mail_max_userip_connections = 100
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {root}/tokens.conf
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login
  args = scheme=PLAIN username_format=%u {root}/users
}}
userdb {{
  driver = static
  args = uid={owner} gid={group} home={root}/mail/%u allow_all_users=yes
}}
service imap-login {{
  {chroot}
  inet_listener imap {{
    address = {host}
    port = {plain_port}
  }}
  inet_listener imaps {{
    address = {host}
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  {chroot}
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  {chroot}
}}
"""
TOKENS = """
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={root}/keys/
username_attribute = sub
"""


class Dovecot:
    """One server. ``port`` speaks TLS; ``plain_port`` STARTTLS, or nothing."""

    def __init__(self, root: Path, passwords: Mapping[str, str], host: str) -> None:
        self._root = root
        self._passwords = dict(passwords)
        self._deliveries = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.plain_port = free_ports(2)
        authority = Authority(root / "authority")
        authority.issue(root / "certificate", host)
        self.ca_file = authority.file
        as_root = os.geteuid() == 0
        me = pwd.getpwuid(os.geteuid())
        self._owner = pwd.getpwnam(MAIL_USER) if as_root else me
        for folder in ("run", "mail", "keys/default/HS256"):
            (root / folder).mkdir(parents=True)
        (root / "keys/default/HS256/default").write_bytes(base64.b64encode(TOKEN_KEY))
        (root / "users").write_text("".join(f"{user}:{{PLAIN}}{word}\n" for user, word in passwords.items()))
        (root / "tokens.conf").write_text(TOKENS.format(root=root))
        self.configuration.write_text(
            CONFIGURATION.format(
                root=root,
                host=HOST,
                internal="dovecot" if as_root else me.pw_name,
                internal_group="dovecot" if as_root else grp.getgrgid(me.pw_gid).gr_name,
                login="dovenull" if as_root else me.pw_name,
                owner=self._owner.pw_name,
                group=grp.getgrgid(self._owner.pw_gid).gr_name,
                chroot="" if as_root else "chroot =",
                plain_port=self.plain_port,
                tls_port=self.port,
            )
        )
        for path in [root, *root.rglob("*")]:  # its processes run as other users, whatever this one's umask is
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(root / "mail", self._owner.pw_uid, self._owner.pw_gid)

    # The server

    def start(self) -> None:
        """Starts it and returns once it lets people in: it greets before it can check a password."""
        assert PROGRAM is not None and self._process is None
        with (self._root / "output").open("ab") as output:
            self._process = subprocess.Popen(
                # No server outlives the tests, also when these are killed.
                ["setpriv", "--pdeathsig", "KILL", PROGRAM, "-F", "-c", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self._lets_in():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Dovecot does not start:\n{self.log}")

    def stop(self) -> None:
        """Stops it, with every process that it started; by itself it would leave those that serve clients for a while."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill(self) -> None:
        """Ends it as a power cut would, with every process that serves a client; ``start`` brings it back."""
        assert self._process is not None
        process, self._process = self._process, None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def cut(self, user: str) -> int:
        """Kills the processes that serve a user, as a crash would; returns how many there were."""
        assert self._process is not None
        served = [
            child
            for child in psutil.Process(self._process.pid).children(recursive=True)
            if child.name() == "imap" and child.uids().real == self._owner.pw_uid
        ]
        for child in served:
            child.kill()
        psutil.wait_procs(served, timeout=10)
        return len(served)

    def renumber(self, user: str, folder: str, uidvalidity: int) -> None:
        """Gives a folder another UIDVALIDITY, as a server does that lost its index."""
        self._admin("mailbox", "update", "-u", user, "--uid-validity", str(uidvalidity), folder)

    def _admin(self, *words: str) -> None:
        command = [str(DOVEADM), "-c", str(self.configuration), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def configuration(self) -> Path:
        """Its configuration file, for programs of its own package."""
        return self._root / "dovecot.conf"

    @property
    def log(self) -> str:
        """What it wrote, for a test that fails."""
        parts = [self._root / name for name in ("output", "log")]
        return "".join(part.read_text(errors="replace")[-4000:] for part in parts if part.exists())

    def _lets_in(self) -> bool:
        try:
            with self.connection(next(iter(self._passwords))):
                return True
        except (OSError, IMAPClientError):
            time.sleep(0.02)  # between two attempts, until the deadline
            return False

    # Accounts and mail

    def settings(self, user: str, *folders: str, **other: Any) -> ImapFeedSettings:
        """How a feed reaches ``user``; the password is printed by a command."""
        given: dict[str, Any] = {
            "kind": "imap",
            "host": "localhost",
            "port": self.port,
            "user": user,
            "secret": SecretSettings(command=f"cat {self.secret_file(user)}"),
            "folders": folders or ("INBOX",),
            "ca_file": str(self.ca_file),
            "timeout": 60.0,
        }
        return ImapFeedSettings(**{**given, **other})

    def secret_file(self, user: str) -> Path:
        """A file with the user's password."""
        path = self._root / f"secret-{user}"
        path.write_text(self._passwords[user] + "\n")
        return path

    def token(self, user: str, *, seconds: float = 3600.0) -> str:
        """A signed token (JWT, HS256) that this server takes for ``user`` from a minute ago on for ``seconds``."""
        now = datetime.now(UTC)
        begin = int((now - timedelta(minutes=1)).timestamp())
        claims = {"sub": user, "iat": begin, "nbf": begin, "exp": int((now + timedelta(seconds=seconds)).timestamp())}
        body = b".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return b".".join((body, _base64url(hmac.digest(TOKEN_KEY, body, hashlib.sha256)))).decode()

    @contextmanager
    def connection(self, user: str, folder: str | None = None) -> Iterator[IMAPClient]:
        """Another client of the same account, with ``folder`` open for changes."""
        with IMAPClient(HOST, self.plain_port, ssl=False) as client:
            client.normalise_times = False
            client.login(user, self._passwords[user])
            if folder is not None:
                client.select_folder(folder)
            yield client

    def maildir(self, user: str, folder: str = "INBOX") -> Path:
        """Where a folder's mail lies; made when it does not exist."""
        root = self._root / "mail" / user
        place = root if folder == "INBOX" else root / f".{folder.replace('/', '.')}"
        for part in ("cur", "new", "tmp"):
            path = place / part
            if not path.exists():
                path.mkdir(parents=True)
        for path in (root, place, *(place / part for part in ("cur", "new", "tmp"))):
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        return place

    def deliver(
        self, user: str, mails: Sequence[bytes], *, folder: str = "INBOX", at: datetime | None = None
    ) -> list[Path]:
        """Puts mails into a folder as a delivery agent does: written to ``tmp``, then moved to ``new``; in this order.

        ``at`` (naive UTC) becomes their INTERNALDATE.
        """
        place = self.maildir(user, folder)
        seconds = (at or datetime(2024, 5, 1, 12)).replace(tzinfo=UTC).timestamp()
        paths = []
        for raw in mails:
            name = f"{1_700_000_000 + next(self._deliveries)}.M1P1.test"
            temporary = place / "tmp" / name
            temporary.write_bytes(raw)
            os.chown(temporary, self._owner.pw_uid, self._owner.pw_gid)
            os.utime(temporary, (seconds, seconds))
            paths.append(temporary.rename(place / "new" / name))
        return paths


@contextmanager
def dovecot(passwords: Mapping[str, str], *, host: str = "localhost") -> Iterator[Dovecot]:
    """A running server with these accounts and a certificate for ``host``, gone with all its mail at the end.

    Skips the test where Dovecot is not installed.
    """
    require("Dovecot", PROGRAM is not None, HOW)
    root = Path(tempfile.mkdtemp(prefix="dovecot-"))
    server = Dovecot(root, passwords, host)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(root)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
