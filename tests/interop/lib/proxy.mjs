// A TCP proxy that can cut its connections and count what passes.
import { once } from "node:events"
import { connect, createServer } from "node:net"

export class Proxy {
  /** Bytes that passed, both ways. */
  bytes = 0
  /** Pieces that passed, both ways. */
  pieces = 0
  #server
  #target
  #pairs = new Set()
  #offline = false
  #cutOnNext

  static async start(target) {
    const proxy = new Proxy()
    proxy.#target = target
    proxy.#server = createServer(inbound => proxy.#accept(inbound)).listen(0, "127.0.0.1")
    await once(proxy.#server, "listening")
    return proxy
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}`
  }

  /** Cuts what is connected; the client may come back at once. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy()
  }

  /** Cuts when the next piece arrives from either side, which is lost. Resolves when it did. */
  cutOnNextPiece(from = "server") {
    return new Promise(resolve => {
      this.#cutOnNext = { from, resolve }
    })
  }

  goOffline() {
    this.#offline = true
    this.cut()
  }

  goOnline() {
    this.#offline = false
  }

  close() {
    this.goOffline()
    this.#server.close()
  }

  #accept(inbound) {
    if (this.#offline) return inbound.destroy()
    const outbound = connect(this.#target.port, "127.0.0.1")
    const pair = [inbound, outbound]
    this.#pairs.add(pair)
    this.#pump(inbound, outbound, "client")
    this.#pump(outbound, inbound, "server")
    for (const socket of pair) {
      socket.setNoDelay(true)
      socket.on("error", () => {})
      socket.on("close", () => {
        this.#pairs.delete(pair)
        for (const other of pair) other.destroy()
      })
    }
  }

  #pump(source, sink, from) {
    source.on("data", data => {
      if (this.#cutOnNext?.from === from) {
        const { resolve } = this.#cutOnNext
        this.#cutOnNext = undefined
        this.cut()
        resolve()
        return
      }
      this.bytes += data.length
      this.pieces += 1
      sink.write(data)
    })
  }
}
