// A developer activates a phone in the console of the sandbox, answers requests with it, and is
// refused.
//
// Input: {url, image}, the address of the console and the content of an activation image. Result:
// {looks, steps, record, kept, left, complaints, calls}: what is seen in each look (light and
// dark, on a desktop and on a phone) after an exchange, how each step ended, the names and values
// that the exchange has shown, what the browser has stored, what is left after the page was
// loaded again, the errors in the console, and the calls with their header fields.

import { desktop, looks } from "./look.mjs";
const frontEndKey = "sandbox-front-end";

export default async function (browser, { url, image }) {
  const open = async (options) => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: desktop, ...options });
    context.setDefaultTimeout(0); // The test has a limit.
    const page = await context.newPage();
    const complaints = [];
    const requests = [];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("request", (request) => requests.push(request));
    await page.goto(url);
    // The module of the sandbox adds its buttons last.
    await page.locator("#cancelKey ~ button").waitFor();
    return { context, page, complaints, requests };
  };
  const ended = async (page, form) => {
    const said = page.locator(`#${form}:not(:has([aria-disabled])) .said:not(:empty)`);
    await said.waitFor();
    return said.textContent();
  };
  const click = async (page, form, name) => {
    await page.locator(`#${form}`).getByRole("button", { name, exact: true }).click();
    return ended(page, form);
  };

  const seen = await looks(open, async ({ page }) => {
    await click(page, "exchange", "Register jane.doe");
    const said = await click(page, "exchange", "Run the exchange");
    await click(page, "activate", "Sign with the simulated device");
    return { said };
  });

  const { context, page, complaints, requests } = await open();
  const steps = [];
  const step = async (form, name) => steps.push({ step: name, said: await click(page, form, name) });

  // An activation from a pasted image, with the keyboard only.
  await page.focus("#apiKey");
  await page.keyboard.type(frontEndKey);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.insertText(image);
  steps.push({ step: "paste the image", said: await ended(page, "exchange") });
  for (let i = 0; i < 20 && (await page.evaluate(() => document.activeElement.textContent)) !== "Run the exchange"; i++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  // The words about the image are gone when there is a record.
  await page.locator("#exchange + .record").waitFor();
  steps.push({ step: "Run the exchange", said: await ended(page, "exchange") });
  const record = await page.locator("#exchange + .record > li").evaluateAll((items) => items.map((item) => ({
    name: item.querySelector(".name, .path").textContent,
    value: item.querySelector(".value, pre").textContent,
  })));
  await step("addDevice", "Ask the simulated device");
  await step("addDevice", "Add the device");
  await step("activate", "Sign with the simulated device");
  await step("activate", "Complete the activation");

  const outcome = page.locator("#retrieve ~ .said:not(:empty)");
  const told = async () => {
    await outcome.waitFor();
    steps.push({ step: "outcome", said: await outcome.textContent() });
  };
  for (const kind of ["signature", "login"]) {
    await step("retrieve", `Have the bank request a ${kind}`);
    await step("retrieve", "Retrieve the request");
    await step("approve", "Sign with the simulated device");
    steps.push({ step: "screen", said: await page.textContent("#approve ~ .said") });
    await step("approve", "Approve the request");
    await told();
  }
  await step("retrieve", "Have the bank request a signature");
  await step("retrieve", "Retrieve the request");
  await step("cancel", "Take another serial number");
  await step("cancel", "Cancel the request");
  await page.fill("#cancelSerialNumber", await page.inputValue("#serialNumber"));
  await step("cancel", "Wrap it with the simulated device");
  await step("cancel", "Cancel the request");
  await told();

  // A wrong password, and a wrong key.
  await step("exchange", "Register jane.doe for a standard licence");
  const password = await page.inputValue("#password");
  await page.fill("#password", "wrong-password");
  await step("exchange", "Run the exchange");
  await page.fill("#password", password);
  await page.fill("#apiKey", "a-wrong-api-key-0");
  await step("exchange", "Run the exchange");
  await page.fill("#apiKey", frontEndKey);
  await step("exchange", "Run the exchange");
  await step("activateStandard", "Ask the simulated device");
  await step("activateStandard", "Complete the activation");

  const kept = await page.evaluate(async () => ({
    cookies: document.cookie, local: localStorage.length, session: sessionStorage.length, databases: (await indexedDB.databases()).length, address: location.href,
  }));
  kept.cookies += (await context.cookies()).map((cookie) => cookie.name).join();
  const calls = [];
  for (const request of requests) {
    const headers = await request.allHeaders();
    calls.push({ method: request.method(), url: request.url(), authorization: headers.authorization ?? "", cookie: headers.cookie ?? "", referer: headers.referer ?? "" });
  }

  await page.reload();
  await page.locator("#cancelKey ~ button").waitFor();
  const left = await page.evaluate(() => [...document.querySelectorAll("input, textarea, .record, .said")].map((e) => e.value || e.textContent).join(""));
  await context.close();
  return { looks: seen, steps, record, kept, left, complaints, calls };
}
