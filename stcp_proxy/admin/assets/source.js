// Where the figures come from: /status and /history beside this page, asked as often as the tab is looked at.

const TOKEN = "stcp-proxy admin token"; // in sessionStorage: gone with the tab, never sent by the browser of itself
const PATIENCE = 5000; // milliseconds for one answer

function storage(action) {
  try {
    return action(sessionStorage);
  } catch {
    return null; // switched off: the token lives as long as the page
  }
}

let token = storage((kept) => kept.getItem(TOKEN));

export const hasToken = () => token !== null;

export function keepToken(text) {
  token = text;
  storage((kept) => kept.setItem(TOKEN, text));
}

export function forgetToken() {
  token = null;
  storage((kept) => kept.removeItem(TOKEN));
}

/**
 * Ask once.
 * @param {"status" | "history"} path
 * @param {object} wanted its query
 * @returns {Promise<{found: object} | {refused: true} | {lost: string}>} the answer; or that it wants a (different) token; or
 *   why there is none
 */
export async function ask(path, wanted) {
  const headers = {};
  if (token !== null) {
    if (!/^[\x21-\x7e]+$/.test(token)) return { refused: true };
    headers.Authorization = `Bearer ${token}`;
  }
  let answer;
  try {
    answer = await fetch(`${path}?${new URLSearchParams(wanted)}`, {
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (answer.status === 401) return { refused: true };
    if (answer.ok) return { found: await answer.json() };
    return { lost: `The admin address answered ${answer.status}: ${(await answer.text()).slice(0, 300)}` };
  } catch (error) {
    if (error.name === "TimeoutError") return { lost: `No answer within ${PATIENCE / 1000} s` };
    if (error instanceof SyntaxError) return { lost: "The answer cannot be read" };
    return { lost: "Nothing answers" };
  }
}
