"use strict";
/** Documents: run.json and case/<id>.json, from the server or, in an exported copy, from script files. */
const Documents = (() => {
  const served = document.documentElement.dataset.source === "server";

  /** Return what the server answers. */
  async function asked(url, options) {
    let answer;
    try {
      answer = await fetch(url, { cache: "no-store", ...options });
    } catch {
      throw new Error("no answer; check that e2e-abmilx view is still running");
    }
    if (!answer.ok) throw new Error(await reason(answer));
    return answer.json();
  }

  /** Return why the server refused a request, in its words. */
  async function reason(answer) {
    return (await answer.text()).trim().replace(/\.$/, "") || `the server answered ${answer.status}`;
  }

  /** Load a script that calls window[callback] with its document: pages from file:// cannot fetch. */
  function scripted(url, callback) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      let found = null;
      window[callback] = (content) => { found = content; };
      script.src = url;
      script.onload = () => { script.remove(); found ? resolve(found) : reject(new Error(`${url} holds no document`)); };
      script.onerror = () => { script.remove(); reject(new Error(`${url} cannot be read`)); };
      document.head.append(script);
    });
  }

  let waiting = Promise.resolve();  // scripts share one callback, so they load one after the other

  /** Load a script when the ones before it have ended. */
  function queued(url, callback) {
    const next = waiting.then(() => scripted(url, callback));
    waiting = next.catch(() => null);
    return next;
  }

  /** Return the document of the run. */
  function run() {
    return served ? asked("run.json") : queued("data/run.js", "viewerRun");
  }

  /** Return the document of a case. */
  function ofCase(id) {
    return served ? asked(`case/${id}.json`) : queued(`data/case-${id}.js`, "viewerCase");
  }

  /** Save a review; return what was saved. */
  async function review(body) {
    const headers = { "Content-Type": "application/json" };
    return (await asked("review", { method: "POST", headers, body: JSON.stringify(body) })).saved;
  }

  return { run, ofCase, review };
})();
