// One server with the clients of one test, all ended with it.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Client } from "./clients.mjs"
import { Proxy } from "./proxy.mjs"
import { RawPeer } from "./raw.mjs"
import { Server } from "./server.mjs"

export class World {
  server
  #closers = []

  static async start(t, options) {
    const world = World.unstarted(t, options)
    await world.server.start()
    return world
  }

  /** With a server that is yet to be started. */
  static unstarted(t, options) {
    const world = new World()
    world.server = new Server(options)
    t.after(() => world.#close())
    return world
  }

  /** A client straight to the server, or through `options.via`. */
  async client(options = {}) {
    const client = await Client.connect((options.via ?? this.server).url, options)
    this.#closers.push(() => client.close())
    return client
  }

  async clients(count, options) {
    return Promise.all(Array.from({ length: count }, () => this.client(options)))
  }

  /** A connection that can be cut. */
  async proxy() {
    const proxy = await Proxy.start(this.server)
    this.#closers.push(() => proxy.close())
    return proxy
  }

  /** A peer that says what the test says, byte for byte. */
  async raw(options) {
    const peer = await RawPeer.connect(this.server.url, options)
    this.#closers.push(() => peer.close())
    return peer
  }

  directory() {
    const dir = mkdtempSync(join(tmpdir(), "concord-client-"))
    this.#closers.unshift(() => rmSync(dir, { recursive: true, force: true }))
    return dir
  }

  async #close() {
    for (const close of this.#closers.reverse()) await close()
    await this.server.dispose()
  }
}
