// Requests to the admin address: /status and /history. The token is added when there is one.

const TOKEN = "stcp-proxy admin token"; // key in sessionStorage, which ends with the tab and which the browser never sends
const PATIENCE = 5000; // milliseconds for one answer

/** Use sessionStorage; null where the browser does not allow it. */
function storage(action) {
  try {
    return action(sessionStorage);
  } catch {
    return null; // the token is then kept for as long as the page
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
 * Make one request.
 * @param {"status" | "history"} path
 * @param {object} wanted its query
 * @returns {Promise<{found: object} | {refused: true} | {lost: string}>} the answer; or `refused`,
 *   if it needs a (different) token; or the reason why there is no answer
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
    return { lost: "The admin address does not answer" };
  }
}
