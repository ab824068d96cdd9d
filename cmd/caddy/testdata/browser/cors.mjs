// Scripts of web pages call the gateway.
//
// Input: a list of {page, calls}: the URL of a page, and the calls that its script makes one
// after the other, each {url, key, body, credentials}. Result: for each page a list with what
// the script sees of each answer, {status, body, requestID, retryAfter, other}, or {error}.

export default async function (browser, visits) {
  const results = [];
  for (const { page: url, calls } of visits) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.goto(url);
    results.push(await page.evaluate(makeCalls, calls));
    await context.close();
  }
  return results;
}

// Runs in the page.
async function makeCalls(calls) {
  const seen = [];
  for (const { url, key, body, credentials } of calls) {
    try {
      const answer = await fetch(url, {
        method: "POST",
        headers: { Authorization: `Basic ${btoa(`${key}:`)}`, "Content-Type": "application/json" },
        body,
        credentials: credentials || "omit",
      });
      seen.push({
        status: answer.status,
        body: await answer.text(),
        requestID: answer.headers.get("X-Request-Id") ?? "",
        retryAfter: answer.headers.get("Retry-After") ?? "",
        other: answer.headers.get("X-Content-Type-Options") ?? "",
      });
    } catch (error) {
      seen.push({ error: String(error) });
    }
  }
  return seen;
}
