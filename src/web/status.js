// Keeps the page new in place. Without this script it is as good, and as old as the visit.
const EVERY = 15000;
// Without a user and a password that may stand in the address: no request can be made of those.
const HERE = location.origin + location.pathname + location.search;

function renew(old, fresh) {
  const selection = getSelection();
  // Somebody is copying from it.
  if (!selection.isCollapsed && old.contains(selection.anchorNode)) return;
  const left = document.getElementById("table")?.scrollLeft;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  old.replaceChildren(...fresh.childNodes);
  document.getElementById(focused)?.focus({ preventScroll: true });
  document.getElementById("table")?.scrollTo({ left });
}

setInterval(async () => {
  if (document.hidden) return;
  const lost = document.getElementById("lost");
  try {
    const response = await fetch(HERE, { signal: AbortSignal.timeout(EVERY) });
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of ["state", "rows"]) renew(document.getElementById(part), page.getElementById(part));
    document.title = page.title;
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
}, EVERY);
