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

/**
 * Let `work` run, and again when it was asked for meanwhile: always with the newest state, never twice at once.
 */
export function newest(work, delay = 0) {
  let running = false;
  let wanted = false;
  let timer;
  async function run() {
    if (running) {
      wanted = true;
      return;
    }
    running = true;
    try {
      do {
        wanted = false;
        await work();
      } while (wanted);
    } finally {
      running = false;
    }
  }
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, delay);
  };
}
