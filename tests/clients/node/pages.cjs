// A user without a mouse and with a narrow window: visits each page of the JSON argument in each language and colour scheme,
// and answers the consent page with only the keyboard. Prints the findings and the answers as JSON.
"use strict";

const { readFileSync } = require("node:fs");
const { withPage } = require("./chromium.cjs");

const { chromium, origin, paths, consent, languages, screenshots } = JSON.parse(process.argv[2]);
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const WIDTH = 320;
// Minimum size of a target, in CSS pixels.
const TARGET = 44;

// Returns the problems of the current page, as sentences.
async function findings(page, language) {
  await page.evaluate(AXE);
  return page.evaluate(
    async ({ width, target, language }) => {
      const root = document.documentElement;
      const found = [];
      if (root.scrollWidth > width) found.push(`scrolls sideways: ${root.scrollWidth} pixels`);
      if (root.lang !== language) found.push(`has the language ${root.lang}`);
      for (const element of document.querySelectorAll("a, button, summary")) {
        const { width, height } = element.getBoundingClientRect();
        if (width < target || height < target) found.push(`${element.outerHTML} is ${width} by ${height} pixels`);
      }
      for (const element of document.querySelectorAll("main > *, main caption")) {
        const share = element.getBoundingClientRect().width / width;
        if (share < 0.5) found.push(`${element.outerHTML} takes ${share} of the width`);
      }
      const { violations, incomplete } = await axe.run({ resultTypes: ["violations", "incomplete"] });
      const undecided = incomplete.filter(({ id }) => id === "color-contrast");
      for (const { id, nodes } of [...violations, ...undecided]) {
        found.push(...nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`));
      }
      return found;
    },
    { width: WIDTH, target: TARGET, language },
  );
}

// Checks that Tab reaches every focusable element in the order of the page, and that it is visible.
async function keyboardFindings(page) {
  const count = await page.evaluate(() => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    window.expected = [...document.querySelectorAll("a, button, summary, [tabindex='0']")];
    return window.expected.length;
  });
  const found = [];
  for (let index = 0; index < count; index++) {
    await page.keyboard.press("Tab");
    const problem = await page.evaluate((index) => {
      const element = document.activeElement;
      if (element !== window.expected[index]) return `Tab ${index + 1} reaches ${element.outerHTML}`;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      if (outlineStyle === "none" || parseFloat(outlineWidth) < 2) return `the focus is not visible on ${element.outerHTML}`;
      return null;
    }, index);
    if (problem) found.push(problem);
  }
  return found;
}

async function visit(page, path, language, scheme) {
  const logged = [];
  const listen = (message) => logged.push(message.text());
  page.on("console", listen);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setExtraHTTPHeaders({ "Accept-Language": `${language}, *;q=0.1` });
  await page.goto(origin + path, { waitUntil: "load" });
  const found = [...(await findings(page, language)), ...(await keyboardFindings(page))];
  page.off("console", listen);
  // The browser logs error pages as errors.
  found.push(...logged.filter((text) => !text.includes("status of")));
  if (screenshots) {
    const file = `${screenshots}/${path.slice(1)}-${language}-${scheme}.png`;
    await page.screenshot({ path: file, fullPage: true });
  }
  return found.map((text) => `${path} in ${language}, ${scheme}: ${text}`);
}

// Opens the consent page, presses Tab this number of times, and then Enter. Returns the text of the next page.
async function answer(page, tabs) {
  await page.goto(origin + consent, { waitUntil: "load" });
  for (let count = 0; count < tabs; count++) await page.keyboard.press("Tab");
  const navigation = page.waitForNavigation({ timeout: 2_000 }).catch(() => null);
  await page.keyboard.press("Enter");
  await navigation;
  return page.evaluate(() => document.body.innerText);
}

async function main() {
  const seen = await withPage(chromium, [], async (page) => {
    await page.setViewport({ width: WIDTH, height: 640 });
    const found = [];
    for (const language of languages) {
      // The scheme only changes colours, which are the same in each language.
      for (const scheme of language === languages[0] ? ["light", "dark"] : ["light"]) {
        for (const path of paths) found.push(...(await visit(page, path, language, scheme)));
      }
    }
    const answers = [];
    for (const tabs of [0, 1, 2]) answers.push(await answer(page, tabs));
    return { found, answers };
  });
  process.stdout.write(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
