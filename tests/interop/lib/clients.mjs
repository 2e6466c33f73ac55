// Real automerge-repo clients of three generations behind the few calls that the tests make.
import { createHash } from "node:crypto"
import { WebSocket } from "ws"
import { deadline, until, WAIT_MS } from "./wait.mjs"

// 2.6 uses what Node has from 22 on.
globalThis.WebSocket ??= WebSocket
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((...functions) => ([resolve, reject] = functions))
  return { promise, resolve, reject }
}

const loaders = {
  current: async () => ({
    repo: await import("@automerge/automerge-repo"),
    websocket: await import("@automerge/automerge-repo-network-websocket"),
  }),
  old: async () => ({
    repo: await import("automerge-repo-1"),
    websocket: await import("automerge-repo-network-websocket-1"),
  }),
  next: async () => ({
    repo: await import("automerge-repo-next"),
    websocket: await import("automerge-repo-network-websocket-next"),
  }),
}

/** The packages of one generation. */
export const load = generation => loaders[generation]()

/** automerge-repo 2.5.6, 1.2.1 and 2.6.0-alpha.3. */
export const generations = Object.keys(loaders)

/** How often a client without a connection tries again; the package's own is 5 s. */
const RETRY_MS = 100

export class Client {
  repo
  #adapter
  #closed = false

  static async connect(url, { generation = "current", storage, peerId, gossip = false } = {}) {
    const { repo, websocket } = await load(generation)
    const client = new Client()
    client.generation = generation
    client.#adapter = new (websocket.WebSocketClientAdapter ??
      websocket.BrowserWebSocketClientAdapter)(url, RETRY_MS)
    tolerateResets(client.#adapter)
    client.repo = new repo.Repo({
      network: [client.#adapter],
      storage,
      peerId,
      enableRemoteHeadsGossiping: gossip,
    })
    await client.connected()
    return client
  }

  /** Until the server has welcomed this client (again). */
  async connected(ms = WAIT_MS) {
    await until("the server to welcome the client", () => this.repo.peers.length > 0, { ms })
  }

  create(content = {}) {
    const handle = this.repo.create()
    if (Object.keys(content).length > 0) handle.change(doc => Object.assign(doc, content))
    return handle
  }

  /** The document, or an error that says that it is unavailable. */
  async find(url, ms = WAIT_MS) {
    const found = this.generation === "old" ? this.#findOld(url) : this.repo.find(url)
    return deadline(ms, `find(${url})`, found)
  }

  async #findOld(url) {
    const handle = this.repo.find(url)
    await handle.whenReady(["ready", "unavailable"])
    if (handle.isUnavailable()) throw new Error(`Document ${url} is unavailable`)
    return handle
  }

  async close() {
    if (this.#closed) return
    this.#closed = true
    // The 2.5 adapter connects again after it was disconnected, and then nobody hears its errors.
    this.#adapter.connect = () => {}
    this.#adapter.socket?.addEventListener("error", () => {})
    try {
      await this.repo.shutdown()
    } catch {
      // What a client still wants to say while its socket closes is of no interest to the tests.
    }
  }
}

// In Node, the 2.5 adapter throws from its error listener, past every caller, unless the error is a
// refused connection; a browser tells it nothing. A connection that is cut is what we test.
//
// A send while the socket closes throws from a timer, likewise past every caller: a browser logs
// it and goes on, Node ends the process. The edit is not lost: it is sent after the reconnect.
function tolerateResets(adapter) {
  const send = adapter.send.bind(adapter)
  adapter.send = message => {
    try {
      send(message)
    } catch (error) {
      if (!/Websocket not ready/.test(error.message)) throw error
    }
  }
  const original = adapter.onError
  if (typeof original !== "function") return
  adapter.onError = event => {
    if (event.error?.code === "ECONNREFUSED") original(event)
  }
}

/** The document's present content, whatever the generation. */
export const content = handle => (handle.view ? handle.doc() : handle.docSync())

/** The content as plain JSON with sorted keys, so that replicas can be compared. */
export const plain = handle => JSON.stringify(sorted(JSON.parse(JSON.stringify(content(handle)))))

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== "object") return value
  const keys = Object.keys(value).sort()
  return Object.fromEntries(keys.map(key => [key, sorted(value[key])]))
}

/** Until all replicas hold the same content and it satisfies `complete`. */
export async function converged(handles, complete, ms = WAIT_MS) {
  const equal = () =>
    handles.every(handle => content(handle) && complete(content(handle))) &&
    new Set(handles.map(plain)).size === 1
  try {
    await until("the replicas to converge", equal, { handles, ms })
  } catch (error) {
    const states = handles.map(handle => {
      const text = plain(handle)
      return `${text.length} bytes, ${createHash("sha256").update(text).digest("hex").slice(0, 8)}: ${text.slice(0, 200)}`
    })
    throw new Error(`${error.message}\n${states.join("\n")}`)
  }
}
