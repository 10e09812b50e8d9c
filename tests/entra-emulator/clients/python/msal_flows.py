"""One flow of MSAL for Python: its name is the argument, its world JSON on stdin, its result JSON on stdout."""

import base64
import json
import re
import sys
from urllib.parse import parse_qsl, urlsplit

import msal
import requests

WORLD = json.load(sys.stdin)
AUTHORITY = f"{WORLD['authority']}/{WORLD['tenant']}"
GRAPH_SCOPES = ["https://graph.microsoft.com/User.Read"]
API_SCOPES = [WORLD["scope"]]


def confidential(**options):
    credential = {"client_assertion": lambda: WORLD["assertion"]}
    return msal.ConfidentialClientApplication(
        WORLD["api"], authority=AUTHORITY, client_credential=credential, instance_discovery=False, **options
    )


def public(**options):
    return msal.PublicClientApplication(
        WORLD["desktop"], authority=AUTHORITY, instance_discovery=False, **options
    )


def browse(url):
    """Parameters of the redirect from the sign-in page."""
    page = requests.get(url, params={"emulator_user": WORLD["user"]}, allow_redirects=False, timeout=30)
    assert page.status_code == 302, page.text
    return dict(parse_qsl(urlsplit(page.headers["Location"]).query))


def sign_in(app, scopes, claims=None):
    flow = app.initiate_auth_code_flow(scopes, redirect_uri=WORLD["redirect_uri"], claims_challenge=claims)
    return app.acquire_token_by_auth_code_flow(flow, browse(flow["auth_uri"]))


def silently(app, scopes, **options):
    [account] = app.get_accounts()
    return app.acquire_token_silent_with_error(scopes, account, **options)


def client_credentials():
    app = confidential()
    scopes = [f"api://{WORLD['api']}/.default"]
    return {"first": app.acquire_token_for_client(scopes), "second": app.acquire_token_for_client(scopes)}


def on_behalf_of():
    app = confidential(client_capabilities=["cp1"])
    first = app.acquire_token_on_behalf_of(WORLD["user_token"], GRAPH_SCOPES)
    return {"first": first, "second": app.acquire_token_on_behalf_of(WORLD["user_token"], GRAPH_SCOPES)}


def on_behalf_of_without_consent():
    return {"first": confidential().acquire_token_on_behalf_of(WORLD["user_token"], ["Files.Read"])}


def authorization_code():
    app = public()
    first = sign_in(app, API_SCOPES)
    return {"first": first, "second": silently(app, API_SCOPES, force_refresh=True)}


def authorization_code_of_a_web_application():
    app = confidential()
    first = sign_in(app, GRAPH_SCOPES)
    return {"first": first, "second": silently(app, GRAPH_SCOPES, force_refresh=True)}


def device_code():
    app = public()
    flow = app.initiate_device_flow(API_SCOPES)
    entered = {"otc": flow["user_code"], "emulator_user": WORLD["user"]}
    page = requests.post(flow["verification_uri"], data=entered, timeout=30)
    assert page.status_code == 200, page.text
    first = app.acquire_token_by_device_flow(flow)
    return {"first": first, "second": silently(app, API_SCOPES, force_refresh=True)}


def second_factor():
    """The server gets a demand for it, the client's user meets it, and the server continues."""
    server, client = confidential(), public()
    before = sign_in(client, API_SCOPES)["access_token"]
    first = server.acquire_token_on_behalf_of(before, GRAPH_SCOPES)
    after = sign_in(client, API_SCOPES, first["claims"])["access_token"]
    second = server.acquire_token_on_behalf_of(after, GRAPH_SCOPES, claims_challenge=first["claims"])
    return {"first": first, "second": second}


def authentication_context():
    """A refresh token does not meet it, a new sign-in does."""
    app = public(client_capabilities=["cp1"])
    sign_in(app, API_SCOPES)
    first = silently(app, API_SCOPES, claims_challenge=WORLD["claims"])
    return {"first": first, "second": sign_in(app, API_SCOPES, WORLD["claims"])}


def revoked_session():
    """Graph refuses, the server passes its demand to the client, and the client's user signs in again."""
    server, client = confidential(client_capabilities=["cp1"]), public(client_capabilities=["cp1"])
    before = sign_in(client, API_SCOPES)["access_token"]
    graph = server.acquire_token_on_behalf_of(before, GRAPH_SCOPES)["access_token"]
    requests.post(WORLD["revoke"], timeout=30).raise_for_status()
    refused = requests.get(WORLD["me"], headers={"Authorization": f"Bearer {graph}"}, timeout=30)
    encoded = re.search('claims="([^"]+)"', refused.headers["WWW-Authenticate"])[1]
    claims = base64.b64decode(encoded).decode()
    first = server.acquire_token_on_behalf_of(before, GRAPH_SCOPES, claims_challenge=claims)
    after = sign_in(client, API_SCOPES, first["claims"])["access_token"]
    second = server.acquire_token_on_behalf_of(after, GRAPH_SCOPES, claims_challenge=claims)
    return {"first": first, "second": second}


json.dump(globals()[sys.argv[1]](), sys.stdout)
