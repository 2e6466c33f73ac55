// A peer made of a bare WebSocket, for what no well-behaved client would send and for what a client
// does not show.
import { once } from "node:events"
import { next as Automerge } from "@automerge/automerge"
import { cbor, generateAutomergeUrl, parseAutomergeUrl } from "@automerge/automerge-repo"
import { WebSocket } from "ws"
import { deadline, WAIT_MS } from "./wait.mjs"

export class RawPeer {
  /** All messages received, decoded. */
  received = []
  closed
  #socket
  #waiting = []

  /** Connects and, unless `join` is false, shakes hands. */
  static async connect(url, { peerId = `raw-${crypto.randomUUID()}`, join = true, storageId } = {}) {
    const peer = new RawPeer()
    peer.peerId = peerId
    peer.#socket = new WebSocket(url)
    peer.#socket.on("message", data => peer.#receive(cbor.decode(new Uint8Array(data))))
    peer.#socket.on("error", () => {})
    peer.closed = new Promise(resolve => peer.#socket.on("close", resolve))
    await deadline(WAIT_MS, "the WebSocket to open", once(peer.#socket, "open"))
    if (join) {
      peer.join({ storageId })
      peer.welcome = await peer.next("peer")
    }
    return peer
  }

  get open() {
    return this.#socket.readyState === WebSocket.OPEN
  }

  join({ versions = ["1"], storageId } = {}) {
    this.send({
      type: "join",
      senderId: this.peerId,
      peerMetadata: { storageId, isEphemeral: storageId === undefined },
      supportedProtocolVersions: versions,
    })
  }

  /** Sends a message, with the addresses filled in. */
  send(message) {
    const targetId = this.welcome?.senderId ?? "unknown"
    this.sendBytes(cbor.encode({ senderId: this.peerId, targetId, ...message }))
  }

  sendBytes(bytes) {
    this.#socket.send(bytes)
  }

  /** The first message of this type, received already or to come, which is then consumed. */
  next(type, { ms = WAIT_MS, matching = () => true } = {}) {
    const matches = message => message.type === type && matching(message)
    const index = this.received.findIndex(matches)
    if (index >= 0) return Promise.resolve(this.received.splice(index, 1)[0])
    const arrived = new Promise(resolve => this.#waiting.push({ matches, resolve }))
    return deadline(ms, `a ${type} message`, arrived)
  }

  /**
   * Synchronises `doc` until the server names its heads, and returns the merged document. Each call
   * starts over, as a peer that has lost its memory does.
   */
  async sync(documentId, doc = Automerge.init()) {
    let state = Automerge.initSyncState()
    for (;;) {
      const [nextState, data] = Automerge.generateSyncMessage(doc, state)
      state = nextState
      const heads = Automerge.getHeads(doc)
      if (data) {
        this.send({ type: heads.length > 0 ? "sync" : "request", documentId, data })
      }
      const theirs = state.theirHeads ?? []
      if (heads.length > 0 && heads.join() === [...theirs].sort().join()) return doc
      const reply = await this.next("sync", { matching: m => m.documentId === documentId })
      ;[doc, state] = Automerge.receiveSyncMessage(doc, state, reply.data)
    }
  }

  async close() {
    if (this.#socket.readyState === WebSocket.CLOSED) return
    this.#socket.terminate()
    await this.closed
  }

  #receive(message) {
    const index = this.#waiting.findIndex(waiting => waiting.matches(message))
    if (index >= 0) this.#waiting.splice(index, 1)[0].resolve(message)
    else this.received.push(message)
  }
}

/** The payload of a request by a peer that has nothing. */
export function emptySync() {
  const [, data] = Automerge.generateSyncMessage(Automerge.init(), Automerge.initSyncState())
  return data
}

/** A document id that nobody has. */
export function unknownDocumentId() {
  return parseAutomergeUrl(generateAutomergeUrl()).documentId
}
