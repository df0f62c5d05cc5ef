// Without this script the page works all the same: it reloads itself as a whole. The script only spares the eye that.
setInterval(async () => {
  const main = document.getElementById("content");
  const form = main.querySelector("form");
  if (document.hidden || (form && form.contains(document.activeElement))) return;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("content");
    const region = main.querySelector(".wide");
    const left = region ? region.scrollLeft : 0;
    const focused = main.contains(document.activeElement) ? document.activeElement : null;
    if (!fresh || focused) return;
    main.replaceChildren(...fresh.childNodes);
    document.title = page.title;
    const again = main.querySelector(".wide");
    if (again) again.scrollLeft = left;
  } catch (_) {
    // The exporter is restarting, or the network is away: the next turn tries again.
  }
}, 15000);
