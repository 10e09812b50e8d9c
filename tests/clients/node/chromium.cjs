// Chromium in a separate profile, while a function uses a page of it.
"use strict";

const puppeteer = require("puppeteer-core");

const PATIENCE = 30_000;

async function withPage(chromium, args, use) {
  const browser = await puppeteer.launch({
    executablePath: chromium,
    args: [
      // Chromium's sandbox does not start as root.
      ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
      "--no-proxy-server",
      "--disable-dev-shm-usage",
      ...args,
    ],
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE);
    return await use(page);
  } finally {
    await browser.close();
  }
}

module.exports = { PATIENCE, withPage };
