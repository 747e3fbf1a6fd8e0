// Server-sent events from the answer to a POST, which EventSource can't read. Nothing here touches the page.

/**
 * Reads server-sent events from text that comes in pieces.
 *
 * Only what the site sends is understood: lines that end in "\n", `event`, `data` and comments.
 *
 * @param take called with the type of each event and its data, which are JSON.
 */
export class EventParser {
  #take;
  #rest = "";

  constructor(take) {
    this.#take = take;
  }

  /** Read a further piece. */
  feed(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) this.#read(block);
  }

  #read(block) {
    let kind = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      if (line.startsWith("data: ")) data.push(line.slice(6));
    }
    if (data.length > 0) this.#take(kind, JSON.parse(data.join("\n")));
  }
}

/** Read all events of an answer of fetch. */
export async function readEvents(response, take) {
  const parser = new EventParser(take);
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    parser.feed(decoder.decode(value, { stream: true }));
  }
}
