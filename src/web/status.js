// Updates the page in place. Without this script the page works as well, but has to be reloaded.
const REFRESH_INTERVAL = 15000;
// The address without a user and password that it may contain: `fetch` refuses those.
const PAGE = location.origin + location.pathname + location.search;

function replace(current, updated) {
  const selection = getSelection();
  // The user may be copying text.
  if (!selection.isCollapsed && current.contains(selection.anchorNode)) return;
  const left = document.getElementById("table")?.scrollLeft;
  const focused = current.contains(document.activeElement) ? document.activeElement.id : "";
  current.replaceChildren(...updated.childNodes);
  document.getElementById(focused)?.focus({ preventScroll: true });
  document.getElementById("table")?.scrollTo({ left });
}

setInterval(async () => {
  if (document.hidden) return;
  const lost = document.getElementById("lost");
  try {
    const response = await fetch(PAGE, { signal: AbortSignal.timeout(REFRESH_INTERVAL) });
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of ["state", "rows"]) replace(document.getElementById(part), page.getElementById(part));
    document.title = page.title;
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}, REFRESH_INTERVAL);
