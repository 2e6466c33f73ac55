// A client of Concord's own messages, made of a bare WebSocket and CBOR: all that is needed to ask a
// relay what it also answers over HTTP, and to hear what happens.
import { once } from "node:events"
import { decode, encode } from "cbor-x"
import { WebSocket } from "ws"
import { deadline, WAIT_MS } from "./wait.mjs"

const SUBPROTOCOL = "concord.v1"

export class ConcordClient {
  /** The schema that the relay told of, if it did: `{ hash, text }`. */
  schema
  #socket
  #waiting = new Map()
  #listening = new Map()
  #nextId = 1

  static async connect(url, { holds } = {}) {
    const client = new ConcordClient()
    client.#socket = new WebSocket(url, SUBPROTOCOL)
    client.#socket.on("error", () => {})
    await deadline(WAIT_MS, "the WebSocket to open", once(client.#socket, "open"))
    const welcomed = new Promise(resolve => client.#waiting.set("peer", resolve))
    // A frame is one message, or a list of them.
    client.#socket.on("message", data =>
      [decode(data)].flat().forEach(message => client.#hear(message)),
    )
    client.#say({
      type: "join",
      senderId: `concord-${crypto.randomUUID()}`,
      peerMetadata: holds ? { concordSchema: holds } : {},
      supportedProtocolVersions: ["1", SUBPROTOCOL],
    })
    const { selectedProtocolVersion } = await deadline(WAIT_MS, "the relay's answer", welcomed)
    if (selectedProtocolVersion !== SUBPROTOCOL) throw new Error("not a Concord relay")
    return client
  }

  /** Resolves with `{ id, status, etag, body }`, the body read as JSON where it is some. */
  async call(method, path, { body, ifMatch, id = this.#nextId++ } = {}) {
    const answered = new Promise(resolve => this.#waiting.set(id, resolve))
    const call = { type: "concord-call", id, method, path, ifMatch }
    this.#say({ ...call, body: body && JSON.stringify(body) })
    const answer = await deadline(WAIT_MS, `an answer to ${method} ${path}`, answered)
    try {
      return { ...answer, body: JSON.parse(answer.body) }
    } catch {
      return answer
    }
  }

  /** Has `heard(event, data)` called with each event of a stream. Resolves with what ends that. */
  async listen(path, heard) {
    const id = this.#nextId++
    this.#listening.set(id, heard)
    const { status } = await this.call("GET", path, { id })
    if (status !== 200) throw new Error(`${path}: ${status}`)
    return () => {
      this.#listening.delete(id)
      this.#say({ type: "concord-hang-up", id })
    }
  }

  async close() {
    this.#socket.close()
    await once(this.#socket, "close")
  }

  #say(message) {
    this.#socket.send(encode(message))
  }

  #hear(message) {
    const { type, id } = message
    if (type === "concord-schema") this.schema = { hash: message.hash, text: message.text }
    else if (type === "concord-event") this.#listening.get(id)?.(message.event, JSON.parse(message.data))
    else if (type === "concord-answer" || type === "peer") {
      this.#waiting.get(id ?? type)?.(message)
      this.#waiting.delete(id ?? type)
    }
  }
}
