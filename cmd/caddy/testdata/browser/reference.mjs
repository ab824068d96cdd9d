// A developer reads the reference of the services.
//
// Input: {url}, the address of the page. Result: {looks, search, followed, copied, keyboard, plain,
// complaints}: what is seen in each look (light and dark, on a desktop and on a phone), what the
// search finds, where a link to something hidden leads, what the buttons copy, where the keyboard
// leads, what is seen without JavaScript, and the errors in the console.

import { desktop, looks, phone } from "./look.mjs";

export default async function (browser, { url }) {
  const open = async (options) => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: desktop, ...options });
    context.setDefaultTimeout(0); // The test has a limit.
    const page = await context.newPage();
    const complaints = [];
    const requests = [];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(url);
    return { context, page, complaints, requests };
  };

  const seen = await looks(open, async ({ page, requests }) => {
    await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
    return { requests };
  });

  const { context, page, complaints } = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  const search = [];
  for (const text of ["", "locked", "CHALLENGEKEY cancel", "registrationID", "no such words", ""]) {
    await page.fill("#search", text);
    search.push({
      text,
      said: await page.textContent("#found"),
      services: await page.locator("article:visible h3").allTextContents(),
      links: await page.locator("nav li li:visible code").allTextContents(),
      opened: await page.locator("details[open]").count(),
      focus: await page.evaluate(() => document.activeElement.id),
    });
  }

  await page.fill("#search", "cancelAuthUser rejects");
  await page.click("#authentication_push_cancelAuthUser table a");
  const target = page.locator("#STAT_NOSUPPORT");
  await target.waitFor({ state: "visible" });
  const followed = { text: await page.inputValue("#search"), top: Math.round((await target.boundingBox()).y) };

  const copied = [];
  for (const id of ["provisioning_getServerTime", "provisioning_DSAPPSRPRegister"]) {
    const button = page.locator(`#${id} .copy`).first();
    await button.focus();
    // The page takes the words back after a while.
    const heard = page.evaluate(() => new Promise((resolve) => {
      const said = document.getElementById("said");
      new MutationObserver(() => {
        if (said.textContent !== "") resolve({ said: said.textContent, name: document.activeElement.textContent });
      }).observe(said, { childList: true });
    }));
    await page.keyboard.press("Enter");
    copied.push({ ...(await heard), text: await page.evaluate(() => navigator.clipboard.readText()) });
  }
  await context.close();

  const reader = await open({ viewport: phone });
  const keyboard = [];
  const focused = () => reader.page.evaluate(() => {
    const e = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(e);
    const box = e.getBoundingClientRect();
    return { element: e.id || e.textContent.trim(), outlined: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2, onScreen: box.right > 0 && box.bottom > 0 && box.top < innerHeight };
  });
  for (const key of ["Tab", "Tab", "Tab", "Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab", "Enter", "Tab"]) {
    await reader.page.keyboard.press(key);
    keyboard.push({ key, ...(await focused()) });
  }
  await reader.context.close();

  const plain = await open({ javaScriptEnabled: false });
  const withoutScript = {
    services: await plain.page.locator("article:visible").count(),
    controls: await plain.page.locator("input:visible, button:visible").count(),
    advice: await plain.page.locator("noscript:visible").count(),
    details: (await plain.page.locator("summary").first().click(), await plain.page.locator("details[open] dl:visible").count()),
  };
  await plain.context.close();

  return { looks: seen, search, followed, copied, keyboard, plain: withoutScript, complaints };
}
