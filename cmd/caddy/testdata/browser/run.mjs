// Runs a scenario in Chromium.
//
//   CHROMIUM=/usr/bin/chromium node run.mjs cors.mjs < input.json > result.json
//
// A scenario is a module of this folder. Its default export is a function of a Browser of
// playwright-core and of the input, and returns the result. Exits with 1 and the reason on
// stderr if the function throws.

import { text } from "node:stream/consumers";
import { chromium } from "playwright-core";

const { default: scenario } = await import(new URL(process.argv[2], import.meta.url));
const input = JSON.parse(await text(process.stdin));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  // The tests run as root, and in namespaces of their own.
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
try {
  process.stdout.write(JSON.stringify(await scenario(browser, input)));
} finally {
  await browser.close();
}
