// A worker from this page's own text: no second file, no network. Where workers are forbidden, the page works itself.

import { serve } from "./worker.js";

/** A thread that answers the newest question only: ask(message, heard), stop(), close(). */
export function thread(source) {
  let id = 0;
  let heard = () => {};
  const receive = (message) => message.id === id && heard(message);
  let send;
  let close = () => {};
  try {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => receive(data);
    send = (message) => worker.postMessage(message);
    close = () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    };
  } catch {
    const answer = serve((message) => receive(structuredClone(message)));
    send = (message) => answer(structuredClone(message));
  }
  const stop = () => send({ id: ++id, task: "stop" });
  return {
    ask(message, listener) {
      heard = listener;
      send({ ...message, id: ++id });
    },
    stop,
    close() {
      stop();
      close();
    },
  };
}
