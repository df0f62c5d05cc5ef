// The status page in a real browser, Chromium without a window. Run by tests/it/browser.rs:
//   node tests/browser.mjs NAME=URL...
// Each page is looked at light and dark, at a desk and on a phone. Pictures of it go into the directory that
// STATUS_PAGE_PICTURES names, for who wants to look at them.
// The page named `demo` is also used: without scripts, by keyboard, and for longer than one of its refreshes.

import { existsSync } from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.resolve(import.meta.dirname, "../.tools/node/index.js"));
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

const WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const WIDTHS = { desk: 1280, phone: 390 };
// What status.js calls EVERY.
const REFRESH = 15000;

// A busy machine is slow, which is nothing to complain of.
const PATIENCE = 60000;

const pictures = process.env.STATUS_PAGE_PICTURES;
const pages = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split(/=(.*)/s, 2)));
const wrong = [];
let checks = 0;

function check(holds, words) {
  checks += 1;
  if (!holds) wrong.push(words);
}

const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const launch = () => chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    // In a container there is next to nothing of it.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
let browser;

// Opens a page and notes what it does that it should not.
async function open(name, options, prepare = async () => {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const origin = new URL(pages[name]).origin;
  const seen = [];
  page.on("request", (request) => {
    seen.push(request.url());
    check(new URL(request.url()).origin === origin, `${name} asks elsewhere: ${request.url()}`);
  });
  page.on("dialog", (dialog) => {
    wrong.push(`${name} opens a dialog: ${dialog.message()}`);
    return dialog.dismiss();
  });
  page.on("pageerror", (error) => wrong.push(`${name}: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") wrong.push(`${name}: ${message.text()}`);
  });
  await prepare(page);
  await page.goto(pages[name]);
  return { page, seen, close: () => context.close() };
}

// What a name smuggled in would be the first of its kind.
const SMUGGLED = "iframe, img, svg, main script, [autofocus], [onerror], [onload], [onfocus], [href^='javascript:']";

async function looksRight(name, scheme, place) {
  const what = `${name}, ${scheme}, ${place}`;
  const viewport = { width: WIDTHS[place], height: 900 };
  const { page, close } = await open(name, { viewport, colorScheme: scheme });
  if (pictures) await page.screenshot({ path: path.join(pictures, `${name}-${scheme}-${place}.png`), fullPage: true });
  const { violations } = await new AxeBuilder({ page }).withTags(WCAG).analyze();
  for (const { id, help, nodes } of violations) wrong.push(`${what}: ${id}: ${help}: ${nodes[0].html}`);
  const { wide, ran, smuggled } = await page.evaluate((smuggled) => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    ran: window.ran,
    smuggled: document.querySelectorAll(smuggled).length,
  }), SMUGGLED);
  check(smuggled === 0, `${what}: a name became markup`);
  check(wide <= 0, `${what}: ${wide} px stick out to the right`);
  check(ran === undefined, `${what}: a script in a name ran`);
  await close();
}

async function worksWithoutScripts() {
  const { page, close } = await open("demo", { javaScriptEnabled: false });
  const rows = page.locator("tbody tr");
  const all = await rows.count();
  check(all > 1, `without scripts there are ${all} rows`);
  await page.getByLabel("Name or id").fill("boardroom");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL("**/?q=boardroom*");
  check((await rows.count()) === 1, "without scripts the filter finds the boardroom");
  await close();
}

async function worksByKeyboard() {
  const { page, close } = await open("demo", {});
  const here = () =>
    page.evaluate(() => {
      const { activeElement: at } = document;
      return { at: at.name || at.id || at.textContent, outline: getComputedStyle(at).outlineStyle };
    });
  const stops = ["Skip to the sensors", "Metrics", "Configuration", "Health", "LightFi documentation"];
  for (const stop of [...stops, "q", "location", "problems", "Show", "table"]) {
    await page.keyboard.press("Tab");
    const { at, outline } = await here();
    check(at === stop, `Tab reaches ${at} where ${stop} is expected`);
    check(outline !== "none", `${stop} does not show that it is reached`);
  }
  await page.goto(pages.demo);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("#sensors:focus").waitFor().catch(() => wrong.push("the first link does not skip to the sensors"));
  checks += 1;
  await page.keyboard.press("Tab");
  await page.keyboard.type("boardroom");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/?q=boardroom*");
  check((await page.locator("tbody tr").count()) === 1, "by keyboard the filter finds the boardroom");
  await close();
}

async function refreshesInPlace() {
  const viewport = { width: WIDTHS.phone, height: 600 };
  const { page, seen, close } = await open("demo", { viewport }, (page) => page.clock.install());
  await page.evaluate(() => {
    for (const part of ["state", "rows"]) document.getElementById(part).firstElementChild.dataset.old = part;
    document.querySelector("main").dataset.kept = "yes";
    document.querySelector("[name=q]").value = "half a wo";
    document.getElementById("table").focus({ preventScroll: true });
    window.scrollTo(0, 700);
    // Every state in which the page could be painted: a refresh must not leave it empty for a moment.
    window.fewest = Infinity;
    const count = () => {
      window.fewest = Math.min(window.fewest, document.querySelectorAll("tbody tr").length);
      requestAnimationFrame(count);
    };
    new MutationObserver(() => {
      window.fewest = Math.min(window.fewest, document.querySelectorAll("tbody tr").length);
    }).observe(document.body, { childList: true, subtree: true });
    count();
  });
  const rows = await page.locator("tbody tr").count();
  const answered = page.waitForResponse((response) => response.url() === pages.demo);
  await page.clock.runFor(REFRESH + 100);
  await answered;
  await page.waitForFunction(() => !document.querySelector("[data-old]"), null, { polling: 50 }).catch(() => {});
  const after = await page.evaluate(() => ({
    old: document.querySelectorAll("[data-old]").length,
    kept: document.querySelector("main").dataset.kept,
    typed: document.querySelector("[name=q]").value,
    focused: document.activeElement.id,
    scrolled: window.scrollY,
    fewest: window.fewest,
  }));
  check(after.old === 0, "the state and the rows are not new after a refresh");
  check(after.kept === "yes", "a refresh loads the whole page anew");
  check(after.typed === "half a wo", "a refresh takes away what is being typed");
  check(after.focused === "table", `a refresh moves the focus to ${after.focused}`);
  check(after.scrolled === 700, `a refresh scrolls to ${after.scrolled}`);
  check(after.fewest === rows, `a refresh shows ${after.fewest} of ${rows} rows for a moment`);
  check(seen.length === 2, `one refresh makes ${seen.length - 1} requests`);

  // The exporter goes away and comes back.
  const lost = page.getByText("does not answer at the moment");
  check(!(await lost.isVisible()), "the exporter is called silent while it answers");
  await page.route("**/*", (route) => route.fulfill({ status: 503, body: "" }));
  page.removeAllListeners("console");
  await page.clock.runFor(REFRESH);
  await lost.waitFor().catch(() => wrong.push("nothing tells that the exporter is silent"));
  await page.unroute("**/*");
  await page.clock.runFor(REFRESH);
  await lost.waitFor({ state: "hidden" }).catch(() => wrong.push("it is silent for ever"));
  checks += 2;
  await close();
}

async function all() {
  for (const name of Object.keys(pages)) {
    for (const scheme of ["light", "dark"]) {
      for (const place of Object.keys(WIDTHS)) await looksRight(name, scheme, place);
    }
  }
  await worksWithoutScripts();
  await worksByKeyboard();
  await refreshesInPlace();
}

// A browser that breaks down, or hangs, is started once more. What was found before that is told in any case.
for (const last of [false, true]) {
  try {
    browser = await launch();
    await all();
    break;
  } catch (error) {
    if (last) wrong.push(String(error));
    else console.error(`once more, for ${error}`);
  } finally {
    await browser?.close().catch(() => {});
  }
}

for (const words of wrong) console.error(words);
console.log(`${checks} checks, ${wrong.length} wrong`);
process.exit(wrong.length === 0 ? 0 : 1);
