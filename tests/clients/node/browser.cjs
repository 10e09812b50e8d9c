// A user in a real browser, in a separate profile: opens the address of the JSON argument, signs in at the authority,
// with a device's code if there is one, and prints the last page as JSON.
"use strict";

const { createHash, X509Certificate } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { connect } = require("node:tls");
const { PATIENCE, withPage } = require("./chromium.cjs");

const { chromium, authority, authorityFile, url, user, code, screenshot } = JSON.parse(process.argv[2]);

// The authority's key, which the given CA certifies. The browser trusts only this key besides the system's.
function keyOfAuthority() {
  const { hostname: servername, port } = new URL(authority);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: servername, servername, port, ca: readFileSync(authorityFile) }, () => {
      const { publicKey } = new X509Certificate(socket.getPeerCertificate().raw);
      socket.destroy();
      resolve(createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64"));
    });
    socket.once("error", reject);
  });
}

async function signIn(page) {
  await page.goto(url, { waitUntil: "load" });
  const visited = page.url();
  if (code) {
    await page.type("input[name=otc]", code);
    await page.type("input[name=emulator_user]", user);
    await page.click("button");
  } else {
    await page.click(`button[name=emulator_user][value="${user}"]`);
  }
  // Every page except the last has a form.
  const isLast = () => document.readyState === "complete" && document.forms.length === 0;
  await page.waitForFunction(isLast, { timeout: PATIENCE });
  if (screenshot) await page.screenshot({ path: screenshot });
  const text = await page.evaluate(() => document.body.innerText);
  return { visited, url: page.url(), title: await page.title(), text };
}

async function main() {
  const { port } = new URL(authority);
  const args = [
    `--ignore-certificate-errors-spki-list=${await keyOfAuthority()}`,
    // Like the real authority, this one is on the Internet, and the redirect's address is not.
    `--ip-address-space-overrides=127.0.0.1:${port}=public,[::1]:${port}=public`,
  ];
  process.stdout.write(JSON.stringify(await withPage(chromium, args, signIn)));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
