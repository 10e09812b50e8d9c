"""One flow of azure-identity: its name is the argument, its world JSON on stdin, its result JSON on stdout."""

import json
import os
import sys

import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    ClientAssertionCredential,
    DeviceCodeCredential,
    OnBehalfOfCredential,
    WorkloadIdentityCredential,
)

WORLD = json.load(sys.stdin)
API_SCOPE = f"api://{WORLD['api']}/.default"
GRAPH_SCOPE = "https://graph.microsoft.com/User.Read"
OPTIONS = {"authority": WORLD["authority"], "disable_instance_discovery": True}


def token(credential, scope, **options):
    try:
        return {"access_token": credential.get_token(scope, **options).token}
    except ClientAuthenticationError as error:
        return {"error": type(error).__name__, "error_description": error.message}


def client_assertion():
    credential = ClientAssertionCredential(
        WORLD["tenant"], WORLD["api"], lambda: WORLD["assertion"], authority=WORLD["authority"]
    )
    return {"first": token(credential, API_SCOPE), "second": token(credential, API_SCOPE)}


def workload_identity():
    """As in a pod: all settings come from the environment."""
    os.environ["AZURE_AUTHORITY_HOST"] = WORLD["authority"]
    os.environ["AZURE_TENANT_ID"] = WORLD["tenant"]
    os.environ["AZURE_CLIENT_ID"] = WORLD["api"]
    os.environ["AZURE_FEDERATED_TOKEN_FILE"] = WORLD["assertion_file"]
    credential = WorkloadIdentityCredential()
    return {"first": token(credential, API_SCOPE), "second": token(credential, API_SCOPE)}


def on_behalf_of():
    credential = OnBehalfOfCredential(
        WORLD["tenant"],
        WORLD["api"],
        client_assertion_func=lambda: WORLD["assertion"],
        user_assertion=WORLD["user_token"],
        **OPTIONS,
    )
    first = token(credential, GRAPH_SCOPE, enable_cae=True)
    return {"first": first, "second": token(credential, GRAPH_SCOPE, enable_cae=True)}


def device_code():
    def enter(verification_uri, user_code, _expires_on):
        entered = {"otc": user_code, "emulator_user": WORLD["user"]}
        page = requests.post(verification_uri, data=entered, timeout=30)
        assert page.status_code == 200, page.text

    credential = DeviceCodeCredential(WORLD["desktop"], tenant_id=WORLD["tenant"], prompt_callback=enter, **OPTIONS)
    return {"first": token(credential, WORLD["scope"]), "second": token(credential, WORLD["scope"])}


json.dump(globals()[sys.argv[1]](), sys.stdout)
