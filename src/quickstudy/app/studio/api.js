// The server's API. A token, where one is needed, is in the address: http://…/#token=…

const token = new URLSearchParams(location.hash.slice(1)).get("token");

async function answered(method, path, body) {
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
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  throw Object.assign(new Error(said.error), { status: answer.status });
}

/** What the server answers, as an object; an Error with its sentence where it refuses. */
export const ask = async (method, path, body) => (await answered(method, path, body)).json();

const open = new Map(); // path → what is asked of it and not yet answered

/** Ask something of what is at a path: `remove` waits for the answer. */
export function of(path, method, what, body) {
  const answer = ask(method, `${path}/${what}`, body);
  const all = open.get(path) ?? open.set(path, new Set()).get(path);
  all.add(answer);
  const over = () => all.delete(answer);
  answer.then(over, over);
  return answer;
}

/** Remove what is at a path, once all is answered that was asked of it. */
export async function remove(path) {
  await Promise.allSettled(open.get(path) ?? []);
  open.delete(path);
  await ask("DELETE", path).catch(() => {}); // it may have been forgotten before
}

/** A file that the server gives out, as a Blob; an Error where it refuses. */
export const file = async (path) => (await answered("GET", path)).blob();

/**
 * Work that runs one at a time and with the newest state: `group(work, delay)` makes a function that asks for it,
 * `delay` being the milliseconds in which further wishes are taken together.
 *
 * @param busy told whether anything of the group is yet to be done.
 */
export function newest(busy) {
  const active = new Set();
  return (work, delay) => {
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
  };
}
