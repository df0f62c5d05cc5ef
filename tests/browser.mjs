// Tests the status page in headless Chromium. Run by tests/it/browser.rs:
//   node tests/browser.mjs NAME=URL...
// Each page is checked in light and dark mode, with the width of a desktop and of a phone. Screenshots are written to the
// directory in STATUS_PAGE_PICTURES, if it is set. The page named `demo` is also tested without scripts, by keyboard, and
// over a refresh.

import { existsSync } from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.resolve(import.meta.dirname, "../.tools/node/index.js"));
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

const WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const WIDTHS = { desk: 1280, phone: 390 };
// REFRESH_INTERVAL of status.js.
const REFRESH = 15000;

// Long, because the machine may be busy.
const TIMEOUT = 60000;

const pictures = process.env.STATUS_PAGE_PICTURES;
const pages = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split(/=(.*)/s, 2)));
const errors = [];
let checks = 0;

function check(holds, error) {
  checks += 1;
  if (!holds) errors.push(error);
}

const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const launch = () => chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    // Containers have very little shared memory.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
let browser;

// Opens a page, and reports requests to other hosts, dialogs and errors.
async function open(name, options, prepare = async () => {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(TIMEOUT);
  const page = await context.newPage();
  const origin = new URL(pages[name]).origin;
  const seen = [];
  page.on("request", (request) => {
    seen.push(request.url());
    check(new URL(request.url()).origin === origin, `${name} sends a request to another host: ${request.url()}`);
  });
  page.on("dialog", (dialog) => {
    errors.push(`${name} opens a dialog: ${dialog.message()}`);
    return dialog.dismiss();
  });
  page.on("pageerror", (error) => errors.push(`${name}: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`${name}: ${message.text()}`);
  });
  await prepare(page);
  await page.goto(pages[name]);
  return { page, seen, close: () => context.close() };
}

// Elements that the page never has, so that one of them comes from a name.
const INJECTED = "iframe, img, svg, main script, [autofocus], [onerror], [onload], [onfocus], [href^='javascript:']";

async function looksRight(name, scheme, place) {
  const what = `${name}, ${scheme}, ${place}`;
  const viewport = { width: WIDTHS[place], height: 900 };
  const { page, close } = await open(name, { viewport, colorScheme: scheme });
  if (pictures) await page.screenshot({ path: path.join(pictures, `${name}-${scheme}-${place}.png`), fullPage: true });
  const { violations } = await new AxeBuilder({ page }).withTags(WCAG).analyze();
  for (const { id, help, nodes } of violations) errors.push(`${what}: ${id}: ${help}: ${nodes[0].html}`);
  const { wide, ran, injected } = await page.evaluate((injected) => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    ran: window.ran,
    injected: document.querySelectorAll(injected).length,
  }), INJECTED);
  check(injected === 0, `${what}: a name became markup`);
  check(wide <= 0, `${what}: ${wide} px wider than the screen`);
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
    check(outline !== "none", `${stop} has no focus outline`);
  }
  await page.goto(pages.demo);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("#sensors:focus").waitFor().catch(() => errors.push("the first link does not skip to the sensors"));
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
    // The fewest rows in any state that could be painted: a refresh must not empty the table for a moment.
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
  check(after.old === 0, "a refresh does not replace the state and the rows");
  check(after.kept === "yes", "a refresh reloads the whole page");
  check(after.typed === "half a wo", "a refresh removes typed text");
  check(after.focused === "table", `a refresh moves the focus to ${after.focused}`);
  check(after.scrolled === 700, `a refresh scrolls to ${after.scrolled}`);
  check(after.fewest === rows, `a refresh shows ${after.fewest} of ${rows} rows for a moment`);
  check(seen.length === 2, `one refresh makes ${seen.length - 1} requests`);

  // The exporter stops responding, and responds again.
  const lost = page.getByText("Connection lost");
  check(!(await lost.isVisible()), "the connection is reported as lost while the exporter responds");
  await page.route("**/*", (route) => route.fulfill({ status: 503, body: "" }));
  page.removeAllListeners("console");
  await page.clock.runFor(REFRESH);
  await lost.waitFor().catch(() => errors.push("a lost connection is not reported"));
  await page.unroute("**/*");
  await page.clock.runFor(REFRESH);
  await lost.waitFor({ state: "hidden" }).catch(() => errors.push("a connection is still reported as lost after it is back"));
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

// A browser that crashes or hangs is started once more. Errors found before that are still reported.
for (const last of [false, true]) {
  try {
    browser = await launch();
    await all();
    break;
  } catch (error) {
    if (last) errors.push(String(error));
    else console.error(`starting the browser again after: ${error}`);
  } finally {
    await browser?.close().catch(() => {});
  }
}

for (const error of errors) console.error(error);
console.log(`${checks} checks, ${errors.length} errors`);
process.exit(errors.length === 0 ? 0 : 1);
