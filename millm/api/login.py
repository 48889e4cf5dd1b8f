"""The API key: what carries it, and the one page where a browser is asked for it."""

import hashlib
import hmac
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

LOGIN_PATH = "/auth"
COOKIE_AGE_S = 30 * 24 * 3600
MAX_FORM_BYTES = 4096

# The one page with a form; elsewhere forms are forbidden, for a model's answer could hold one.
CSP = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
PAGE_HEADERS = {"cache-control": "no-store", "content-security-policy": CSP}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>miLLM</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { min-height: 100vh; margin: 0; display: grid; place-items: center; }
  form { display: grid; gap: .75rem; width: min(22rem, 90vw); }
  h1 { margin: 0; font-size: 1.5rem; }
  p { margin: 0; }
  input, button { font: inherit; padding: .6rem .75rem; border-radius: .5rem; border: 1px solid #777; }
  button { border-color: #0e7490; background: #0e7490; color: #fff; cursor: pointer; }
  [role=alert] { color: #dc2626; }
  @media (prefers-color-scheme: dark) { [role=alert] { color: #f87171; } }
</style>
</head>
<body>
<form method="post" action="/auth">
  <h1>miLLM</h1>
  <p>This server asks for its API key once.</p>
  <label for="key">API key</label>
  <input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
  <!--alert-->
  <button>Open miLLM</button>
</form>
</body>
</html>
"""


class KeyCheck:
    """Knows the key, and whether a request carries it.

    A browser carries it as a cookie that holds a digest made with the key instead of the key itself, so the cookie
    tells nobody the key, and stays good over restarts for as long as the key is the same.
    """

    def __init__(self, key: str, port: int) -> None:
        """port: keeps the cookies of two servers on one machine apart, since browsers do not."""
        self._key = key.encode()
        self._cookie = f"millm_{port}"
        self._pass = hmac.new(self._key, b"miLLM page", hashlib.sha256).hexdigest()

    def allows(self, request: Request) -> bool:
        """Whether the request carries the key, or the cookie that stands for it."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_key(given.strip().encode("latin-1")):
            return True
        return hmac.compare_digest(
            request.cookies.get(self._cookie, "").encode(errors="replace"), self._pass.encode()
        )

    def ask(self, wrong: bool = False) -> Response:
        """The page with the form, as a refusal. wrong: a key was given, and it was not this one."""
        alert = '<p role="alert">That is not the key of this server.</p>' if wrong else ""
        return HTMLResponse(PAGE.replace("<!--alert-->", alert), 401, PAGE_HEADERS)

    async def log_in(self, request: Request) -> Response:
        """Reads the form; sets the cookie and goes to the page, or asks again."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                return self.ask(wrong=True)
        given = parse_qs(body.decode(errors="replace")).get("key", [""])[0]
        if not self._is_key(given.encode(errors="replace")):
            return self.ask(wrong=True)
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        response.set_cookie(
            self._cookie,
            self._pass,
            max_age=COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
            secure=request.scope["scheme"] == "https",
        )
        return response

    def _is_key(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._key)
