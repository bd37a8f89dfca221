// The server's API. A token, where one is needed, is in the address: http://…/#token=…

const token = new URLSearchParams(location.hash.slice(1)).get("token");

/** What the server answers, as an object; an Error with its sentence where it refuses. */
export async function ask(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(new URL(`api/v1/${path}`, document.baseURI), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(said.error), { status: answer.status });
  return said;
}

const active = new Set();

/**
 * Let `work` run, and again when it was asked for meanwhile: always with the newest state, never twice at once.
 *
 * @param work what is to be done.
 * @param delay milliseconds in which further wishes are taken together.
 * @param busy told whether anything, of all that is made by this function, is yet to be done.
 */
export function newest(work, delay, busy) {
  let running = false;
  let wanted = false;
  let timer;
  async function run() {
    if (running) return;
    running = true;
    try {
      while (wanted) {
        wanted = false;
        await work();
      }
    } finally {
      running = false;
      active.delete(work);
      busy(active.size > 0);
    }
  }
  return () => {
    wanted = true;
    active.add(work);
    busy(true);
    clearTimeout(timer);
    timer = setTimeout(run, delay);
  };
}
