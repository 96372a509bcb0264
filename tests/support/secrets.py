"""Credentials of many kinds as people send them in mail: made up, each from its service's documented form."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE64 = ALNUM + "+/"
URLSAFE = ALNUM + "-_"
WORDS = ("river", "stone", "maple", "orbit", "candle", "harbor", "violet", "thunder", "meadow", "copper", "falcon")
NAMES = ("ann", "bob", "carol", "deploy", "admin", "svc-mail", "root", "builder", "reporting", "jenkins")
HOSTS = ("db.example", "ci.example", "files.example", "10.0.0.7", "mirror.example", "wiki.example")


@dataclass(frozen=True, slots=True)
class Planted:
    """Text that goes into a mail, and the secrets in it of which nothing may be left."""

    kind: str
    text: str
    secrets: tuple[str, ...]


def _chars(rng: random.Random, alphabet: str, n: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(n))


def _password(rng: random.Random) -> str:
    """As people and generators choose them; at least one digit."""
    word = rng.choice(WORDS)
    return rng.choice(
        [
            f"{word}{rng.randint(10, 9999)}",
            f"{word.title()}{rng.choice('!#%*')}{rng.randint(1, 99)}",
            f"{word[:4]}{rng.randint(0, 9)}{rng.choice(WORDS)}",
            _chars(rng, ALNUM, 9) + str(rng.randint(0, 9)),
            _chars(rng, ALNUM + "!#%+*_-", 13) + "7x",
            f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{rng.randint(10, 99)}",
        ]
    )


def _block(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    name = rng.choice(["RSA ", "EC ", "", "OPENSSH ", "DSA ", "ENCRYPTED "])
    lines = [_chars(rng, BASE64, 64) for _ in range(rng.randint(3, 14))] + [_chars(rng, BASE64, 22) + "=="]
    quote = rng.choice(["", "", "> "])
    block = [f"-----BEGIN {name}PRIVATE KEY-----", *lines, f"-----END {name}PRIVATE KEY-----"]
    return "\n".join(quote + line for line in block), tuple(lines)


def _one(secret: str, *forms: str, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    return rng.choice(forms).replace("{}", secret), (secret,)


def _jwt(rng: random.Random) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(f'{{"sub":"{rng.randint(1, 10**9)}","name":"Ann"}}'.encode()).decode().rstrip("=")
    return f"{head}.{body}.{_chars(rng, URLSAFE, 43)}"


KINDS: dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]] = {
    "private key block": _block,
    "AWS access key": lambda rng: _one(
        "AKIA" + _chars(rng, string.ascii_uppercase + "234567", 16),
        "aws_access_key_id = {}", "the key id is {} in eu-west-1", "AWS_ACCESS_KEY_ID={}", "> {}", rng=rng,
    ),
    "AWS secret key": lambda rng: _one(
        _chars(rng, BASE64, 39) + "7", "aws_secret_access_key = {}", "AWS_SECRET_ACCESS_KEY={}", '"SecretAccessKey": "{}"',
        "secret key: {}", rng=rng,
    ),
    "Google API key": lambda rng: _one(
        "AIza" + _chars(rng, URLSAFE, 34) + "a", "maps key {}", "https://maps.example/js?key={}&v=3", 'apiKey: "{}",',
        rng=rng,
    ),
    "Azure storage key": lambda rng: _one(
        _chars(rng, BASE64, 86) + "==",
        "DefaultEndpointsProtocol=https;AccountName=store;AccountKey={};EndpointSuffix=core.windows.example",
        "Endpoint=sb://bus.example/;SharedAccessKeyName=Root;SharedAccessKey={}", rng=rng,
    ),
    "GitHub token": lambda rng: _one(
        rng.choice(["ghp_", "gho_", "ghs_"]) + _chars(rng, ALNUM, 36),
        "I made a token for you, {}, valid a week", "git clone https://{}@github.example/a/b.git", "GITHUB_TOKEN={}",
        "    token: {}", rng=rng,
    ),
    "GitLab token": lambda rng: _one(
        "glpat-" + _chars(rng, URLSAFE, 19) + "x", "PRIVATE-TOKEN: {}", "use {} for the API", "GITLAB_TOKEN: {}", rng=rng
    ),
    "Slack token": lambda rng: _one(
        f"xoxb-{rng.randint(10**10, 10**12)}-{rng.randint(10**10, 10**12)}-{_chars(rng, ALNUM, 24)}",
        "SLACK_BOT_TOKEN={}", "bot token is {}.", "slack: {}", rng=rng,
    ),
    "Stripe key": lambda rng: _one(
        rng.choice(["sk_live_", "rk_live_", "sk_test_"]) + _chars(rng, ALNUM, 24), "STRIPE_KEY={}", "stripe.api_key = '{}'",
        "Live key: {}", rng=rng,
    ),
    "JSON Web Token": lambda rng: _one(_jwt(rng), "Cookie: session={}", "the token was {}", "id_token={}&state=1", rng=rng),
    "Basic header": lambda rng: _one(
        base64.b64encode(f"{rng.choice(NAMES)}:{_password(rng)}".encode()).decode(),
        "Authorization: Basic {}", "curl -H 'Authorization: Basic {}' http://host.example/", "> Authorization: Basic {}",
        rng=rng,
    ),
    "Bearer header": lambda rng: _one(
        _chars(rng, URLSAFE, 39) + "4", "Authorization: Bearer {}", 'headers = {"Authorization": "Bearer {}"}',
        "curl -H 'authorization: bearer {}' http://host.example/v1", rng=rng,
    ),
    "URL with a password": lambda rng: _one(
        _password(rng).replace("#", "x"), f"wget ftp://{rng.choice(NAMES)}:{{}}@{rng.choice(HOSTS)}/pub/x.tar.gz",
        f"svn checkout https://{rng.choice(NAMES)}:{{}}@{rng.choice(HOSTS)}/svn/trunk", rng=rng,
    ),
    "database URL": lambda rng: _one(
        _password(rng).replace("#", "x"), f"DATABASE_URL=postgresql://app:{{}}@{rng.choice(HOSTS)}:5432/app",
        f"mysql+pymysql://root:{{}}@{rng.choice(HOSTS)}/shop", f"redis://:{{}}@{rng.choice(HOSTS)}:6379/0",
        f"mongodb+srv://svc:{{}}@{rng.choice(HOSTS)}/?retryWrites=true", rng=rng,
    ),
    "password in words": lambda rng: _one(
        _password(rng), "Password: {}", "password: {}", "the password is {}", "The password for the new wiki is {}.",
        "Your password has been reset to {}", "pwd={}", "> passwd: {}", "Passwort: {}", "username: ann  password: {}",
        "Le mot de passe: {}", "pass: {}", "passphrase = \"{}\"", "DB_PASSWORD={}",
        "Your password was changed to {}, please log in", "contraseña: {}", "<password>{}</password>", rng=rng,
    ),
    "npm token": lambda rng: _one(
        "npm_" + _chars(rng, ALNUM, 36), "//registry.example/:_authToken={}", "NPM_TOKEN={}", "npm token {}", rng=rng
    ),
    "PyPI token": lambda rng: _one(
        "pypi-AgEIcHlwaS5vcmc" + _chars(rng, URLSAFE, 120), "password = {}", "TWINE_PASSWORD={}", "upload with {}", rng=rng
    ),
    ".netrc": lambda rng: _one(
        _password(rng), f"machine {rng.choice(HOSTS)} login {rng.choice(NAMES)} password {{}}",
        f"machine {rng.choice(HOSTS)}\n  login {rng.choice(NAMES)}\n  password {{}}",
        f"> machine {rng.choice(HOSTS)}\n> login {rng.choice(NAMES)}\n> password {{}}", rng=rng,
    ),
    "password hash": lambda rng: _one(
        rng.choice(
            [
                f"$apr1${_chars(rng, ALNUM, 8)}${_chars(rng, ALNUM + './', 22)}", f"$2y$10${_chars(rng, ALNUM + './', 53)}",
                "{SHA}" + _chars(rng, BASE64, 27) + "=", f"$6${_chars(rng, ALNUM, 16)}${_chars(rng, ALNUM + './', 86)}",
                f"$1${_chars(rng, ALNUM, 8)}${_chars(rng, ALNUM + './', 22)}",
            ]
        ),
        f"{rng.choice(NAMES)}:{{}}", f"{rng.choice(NAMES)}:{{}}:19000:0:99999:7:::", rng=rng,
    ),
    "assigned secret": lambda rng: _one(
        rng.choice([_chars(rng, HEX, 31) + "4", _chars(rng, ALNUM, 27) + "3k9"]),
        "API_KEY={}", "api_key: '{}'", "client_secret = {}", "SECRET_KEY = '{}'", "export AUTH_TOKEN={}", "x-api-key: {}",
        '"access_token": "{}"', "my API key is {}", "https://api.example/v1?api_key={}&q=1", "webhook_secret: {}", rng=rng,
    ),
}  # fmt: skip
"""Twenty kinds: what the text is, and the secrets in it."""

HARD: dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]] = {
    "a plain word in a sentence": lambda rng: _one(
        rng.choice(WORDS), "the password is {} by the way", "log in as ann with password {} please",
        "I set your password to {}, change it soon", rng=rng,
    ),
    "a passphrase of several words": lambda rng: _one(
        " ".join(rng.sample(WORDS, 4)), "passphrase: {}", "the passphrase is: {}", rng=rng
    ),
    "a secret that nothing announces": lambda rng: _one(
        _password(rng), "ann / {}", "try {} instead", "it is {} now", rng=rng
    ),
}  # fmt: skip
"""What people write too, and no rule of form finds; how much of it is found by luck is measured, not hidden."""


OF_OTHERS: dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]] = {
    "Artifactory token": lambda rng: _one(
        rng.choice(["AKC", "AP5"]) + _chars(rng, ALNUM, 60), "use {} for the repository", "artifactory={}", "{}", rng=rng
    ),
    "AWS bearer or context key": lambda rng: _one(
        rng.choice(["ABIA", "ACCA", "A3TX"]) + _chars(rng, string.ascii_uppercase + "234567", 16), "key id {}", "{}",
        rng=rng,
    ),
    "Cloudant password": lambda rng: _one(
        _chars(rng, HEX, 64), "cloudant_password={}", "cl_api_key: {}", "cloudant-pw {}", rng=rng
    ),
    "Discord bot token": lambda rng: _one(
        f"M{_chars(rng, ALNUM, 23)}.{_chars(rng, ALNUM, 6)}.{_chars(rng, URLSAFE, 26)}a", "client.run('{}')", "the bot: {}",
        rng=rng,
    ),
    "GitLab runner registration": lambda rng: _one(
        "GR1348941" + _chars(rng, ALNUM, 20), "gitlab-runner register -r {}", "registered with {}", rng=rng
    ),
    "IBM Cloud key": lambda rng: _one(
        _chars(rng, ALNUM, 44), "ibm_cloud_iam_key: {}", "cloud-iam-token = {}", "iam_pass={}", rng=rng
    ),
    "IBM object storage": lambda rng: _one(
        _chars(rng, HEX, 48), "cos_hmac_secret_access_key: {}", "ibm_cos_secret_key={}", rng=rng
    ),
    "Mailchimp key": lambda rng: _one(f"{_chars(rng, HEX, 32)}-us{rng.randint(1, 20)}", "mailchimp {}", "{}", rng=rng),
    "SoftLayer key": lambda rng: _one(
        _chars(rng, HEX, 64), "softlayer_key={}", "sl_api_key: {}", "softlayer_token {}", rng=rng
    ),
    "Square secret": lambda rng: _one("sq0csp-" + _chars(rng, URLSAFE, 42) + "a", "square: {}", "{}", rng=rng),
    "Telegram bot token": lambda rng: _one(
        f"{rng.randint(10**8, 10**10 - 1)}:{_chars(rng, 'BCDEFG', 1)}{_chars(rng, URLSAFE, 33)}a", "the bot is {}", "{}",
        rng=rng,
    ),
    "Twilio key": lambda rng: _one("SK" + _chars(rng, HEX, 32), "twilio {}", "{}", rng=rng),
}  # fmt: skip
"""What detect-secrets documents beside the kinds above."""


def plant(kinds: dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]], n: int, seed: int) -> list[Planted]:
    """``n`` of the kinds in turn."""
    rng = random.Random(seed)
    names = list(kinds)
    made = []
    for i in range(n):
        kind = names[i % len(names)]
        text, secrets = kinds[kind](rng)
        made.append(Planted(kind, text, secrets))
    return made


def planted_into(words: str, planted: Planted, rng: random.Random) -> str:
    """The mail's words with the planted text on lines of its own at some line, or behind a sentence."""
    lines = words.split("\n")
    at = rng.randint(0, len(lines))
    return "\n".join([*lines[:at], planted.text, *lines[at:]])
