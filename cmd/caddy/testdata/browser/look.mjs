// What a page looks like, for the scenarios of this folder.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const desktop = { width: 1280, height: 900 };
export const phone = { width: 360, height: 740 };

// looks opens a page light and dark, on a desktop and on a phone, and returns what is seen: the
// colour of the ground, the greatest width, and what axe finds. The function open opens the page
// with options of a context, and returns it with its context and its complaints. The function
// prepare gets that, makes the page ready, and returns what else there is to tell.
export async function looks(open, prepare) {
  const found = [];
  for (const colorScheme of ["light", "dark"]) {
    for (const viewport of [desktop, phone]) {
      const opened = await open({ colorScheme, viewport });
      const { context, page, complaints } = opened;
      const more = await prepare(opened);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const widest = await page.evaluate(() => document.documentElement.scrollWidth);
      await page.evaluate(axe);
      const { violations, passes } = await page.evaluate(() => axe.run());
      found.push({
        colorScheme, ground, complaints, widest, ...more,
        width: viewport.width,
        rules: passes.length,
        violations: violations.map((v) => `${v.impact} ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html).join(" ")}`),
      });
      await context.close();
    }
  }
  return found;
}
