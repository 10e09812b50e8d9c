// One flow of MSAL for Node: its name is the argument, its world JSON on stdin, its result JSON on stdout.
"use strict";

const { readFileSync } = require("node:fs");
const { ConfidentialClientApplication, CryptoProvider, PublicClientApplication } = require("@azure/msal-node");

const world = JSON.parse(readFileSync(0, "utf8"));
const graphScopes = ["https://graph.microsoft.com/User.Read"];
const apiScopes = [world.scope];

function auth(clientId, options) {
  const { host } = new URL(world.authority);
  return { clientId, authority: `${world.authority}/${world.tenant}`, knownAuthorities: [host], ...options };
}

function confidential(options) {
  const clientAssertion = async () => world.assertion;
  return new ConfidentialClientApplication({ auth: auth(world.api, { clientAssertion, ...options }) });
}

function public_(options) {
  return new PublicClientApplication({ auth: auth(world.desktop, options) });
}

// In the format of MSAL for Python, so that one test can read both.
async function outcome(request) {
  try {
    const result = await request;
    return {
      access_token: result.accessToken,
      id_token: result.idToken,
      token_source: result.fromCache ? "cache" : "identity_provider",
      user: result.account?.username,
    };
  } catch (error) {
    return {
      error: error.errorCode,
      suberror: error.subError,
      claims: error.claims,
      error_description: error.errorMessage,
      kind: error.name,
    };
  }
}

// Parameters of the redirect from the sign-in page.
async function browse(url) {
  const page = new URL(url);
  page.searchParams.set("emulator_user", world.user);
  page.searchParams.set("response_mode", "query");
  const response = await fetch(page, { redirect: "manual" });
  if (response.status !== 302) throw new Error(await response.text());
  return Object.fromEntries(new URL(response.headers.get("location")).searchParams);
}

async function signIn(app, scopes, claims) {
  const { verifier, challenge } = await new CryptoProvider().generatePkceCodes();
  const request = { scopes, redirectUri: world.redirect_uri, claims };
  const url = await app.getAuthCodeUrl({ ...request, codeChallenge: challenge, codeChallengeMethod: "S256" });
  const { code } = await browse(url);
  return outcome(app.acquireTokenByCode({ ...request, code, codeVerifier: verifier }));
}

async function silently(app, scopes, options) {
  const [account] = await app.getTokenCache().getAllAccounts();
  return outcome(app.acquireTokenSilent({ account, scopes, ...options }));
}

const flows = {
  async client_credentials() {
    const app = confidential();
    const scopes = [`api://${world.api}/.default`];
    const first = await outcome(app.acquireTokenByClientCredential({ scopes }));
    return { first, second: await outcome(app.acquireTokenByClientCredential({ scopes })) };
  },
  async on_behalf_of() {
    const app = confidential({ clientCapabilities: ["cp1"] });
    const request = { oboAssertion: world.user_token, scopes: graphScopes };
    const first = await outcome(app.acquireTokenOnBehalfOf(request));
    return { first, second: await outcome(app.acquireTokenOnBehalfOf(request)) };
  },
  async on_behalf_of_without_consent() {
    const request = { oboAssertion: world.user_token, scopes: ["Files.Read"] };
    return { first: await outcome(confidential().acquireTokenOnBehalfOf(request)) };
  },
  async authorization_code() {
    const app = public_();
    const first = await signIn(app, apiScopes);
    return { first, second: await silently(app, apiScopes, { forceRefresh: true }) };
  },
  async authorization_code_of_a_web_application() {
    const app = confidential();
    const first = await signIn(app, graphScopes);
    return { first, second: await silently(app, graphScopes, { forceRefresh: true }) };
  },
  async device_code() {
    const app = public_();
    const deviceCodeCallback = async ({ userCode, verificationUri }) => {
      const body = new URLSearchParams({ otc: userCode, emulator_user: world.user });
      const page = await fetch(verificationUri, { method: "POST", body });
      if (page.status !== 200) throw new Error(await page.text());
    };
    const first = await outcome(app.acquireTokenByDeviceCode({ scopes: apiScopes, deviceCodeCallback }));
    return { first, second: await silently(app, apiScopes, { forceRefresh: true }) };
  },
  // The server gets a demand for it, the client's user meets it, and the server continues.
  async second_factor() {
    const [server, client] = [confidential(), public_()];
    const before = await signIn(client, apiScopes);
    const request = { scopes: graphScopes };
    const first = await outcome(server.acquireTokenOnBehalfOf({ ...request, oboAssertion: before.access_token }));
    const { claims } = first;
    const after = await signIn(client, apiScopes, claims);
    const second = server.acquireTokenOnBehalfOf({ ...request, oboAssertion: after.access_token, claims });
    return { first, second: await outcome(second) };
  },
  // Graph refuses, the server passes its demand to the client, and the client's user signs in again.
  async revoked_session() {
    const [server, client] = [confidential({ clientCapabilities: ["cp1"] }), public_({ clientCapabilities: ["cp1"] })];
    const before = await signIn(client, apiScopes);
    const onBehalfOf = (user, claims) =>
      outcome(server.acquireTokenOnBehalfOf({ oboAssertion: user.access_token, scopes: graphScopes, claims }));
    const graph = await onBehalfOf(before);
    await fetch(world.revoke, { method: "POST" });
    const refused = await fetch(world.me, { headers: { authorization: `Bearer ${graph.access_token}` } });
    const [, encoded] = refused.headers.get("www-authenticate").match(/claims="([^"]+)"/);
    const claims = Buffer.from(encoded, "base64").toString();
    const first = await onBehalfOf(before, claims);
    const after = await signIn(client, apiScopes, first.claims);
    return { first, second: await onBehalfOf(after, claims) };
  },
  // A refresh token does not meet it, a new sign-in does.
  async authentication_context() {
    const app = public_({ clientCapabilities: ["cp1"] });
    await signIn(app, apiScopes);
    const first = await silently(app, apiScopes, { claims: world.claims });
    return { first, second: await signIn(app, apiScopes, world.claims) };
  },
};

flows[process.argv[2]]().then(
  (outcomes) => process.stdout.write(JSON.stringify(outcomes)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
