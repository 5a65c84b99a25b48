// Sets the theme before the page is painted, so that the wrong colours never appear. The choice is not secret, and is kept in
// localStorage, beyond the session.
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
    // the browser does not allow storage: the theme of the system is used
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
        // the choice is then kept for as long as the page
      }
      document.dispatchEvent(new Event("theme"));
    });
  });
})();
