// Sets the theme before the page is painted, so that it does not flash in the wrong colours. The choice is no secret and is
// kept beyond the session.
(() => {
  const KEY = "stcp-proxy theme";
  const root = document.documentElement;
  const apply = (choice) => {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
  };
  let kept = null;
  try {
    kept = localStorage.getItem(KEY);
  } catch {
    // storage is switched off: the setting of the system holds
  }
  apply(kept);
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = root.dataset.theme ?? "system";
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem(KEY, select.value);
      } catch {
        // as above
      }
      document.dispatchEvent(new Event("theme"));
    });
  });
})();
