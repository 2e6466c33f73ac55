// Starts the server under test, ends it, and starts it again on the same port and directory.
//
// CONCORD_BIN names the relay. Without it, CONCORD_JS_SERVER names a JavaScript sync server to run
// the same tests against ("reference" for the one in this directory): that shows that the tests
// are right, and which of them the JavaScript servers fail.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { deadline } from "./wait.mjs"

/** How long the server may take to listen. */
const START_MS = 20_000
/** How long it may take to stop when asked politely: the promise is 10 s. */
const STOP_MS = 15_000
const LISTENING = /listening on (?:ws:\/\/[\d.]+:|port )(\d+)/i

export const isConcord = Boolean(process.env.CONCORD_BIN)

/** A port that was free a moment ago. */
export async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1")
  await once(probe, "listening")
  const { port } = probe.address()
  probe.close()
  await once(probe, "close")
  return port
}

export class Server {
  port = 0
  #child
  #env
  #dir
  #log = ""

  constructor({ env = {}, port = 0 } = {}) {
    this.#env = env
    this.port = port
    this.#dir = mkdtempSync(join(tmpdir(), "concord-interop-"))
  }

  static async start(options) {
    const server = new Server(options)
    await server.start()
    return server
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`
  }

  get pid() {
    return this.#child.pid
  }

  /** What the server wrote so far, for messages of failed tests. */
  get log() {
    return this.#log
  }

  get running() {
    return this.#child?.exitCode === null && this.#child.signalCode === null
  }

  /** Starts the process without waiting until it listens. Its port must be known. */
  async spawn() {
    if (!isConcord && this.port === 0) this.port = await freePort()
    const [command, args] = commandLine(this.port, this.#dir)
    this.#child = spawn(command, args, {
      env: { ...process.env, PORT: String(this.port), DATA_DIR: this.#dir, ...this.#env },
      stdio: ["ignore", "pipe", "pipe"],
    })
    const child = this.#child
    child.stderr.on("data", data => (this.#log = (this.#log + data).slice(-20_000)))
    const listening = new Promise((resolve, reject) => {
      child.once("error", reject)
      child.once("exit", (code, signal) =>
        reject(new Error(`the server ended (${signal ?? code}) before it listened:\n${this.#log}`))
      )
      createInterface({ input: child.stdout }).on("line", line => {
        this.#log = (this.#log + line + "\n").slice(-20_000)
        const found = LISTENING.exec(line)
        if (found) resolve(Number(found[1]))
      })
    })
    listening.catch(() => {})
    return listening
  }

  async start() {
    // Promises flatten, so the port comes out of the one that spawn's promise holds.
    this.port = await deadline(START_MS, "the server to listen", this.spawn())
  }

  /** As `kill -9`: nothing is flushed, nobody is told. */
  async kill9() {
    await this.#end("SIGKILL")
  }

  /** As an operator or a service manager stops it. Resolves with the exit code. */
  async terminate() {
    return this.#end("SIGTERM")
  }

  async restart() {
    await this.terminate()
    await this.start()
  }

  /** Resident memory of the server process, in bytes. */
  residentBytes() {
    const status = readFileSync(`/proc/${this.pid}/status`, "utf8")
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) * 1024
  }

  /** Ends the process and removes its directory. */
  async dispose() {
    if (this.running) await this.#end("SIGKILL")
    rmSync(this.#dir, { recursive: true, force: true })
  }

  async #end(signal) {
    const child = this.#child
    if (!this.running) throw new Error(`the server had already ended:\n${this.#log}`)
    const ended = once(child, "exit")
    child.kill(signal)
    const [code] = await deadline(STOP_MS, `the server to end on ${signal}`, ended)
    return code
  }
}

function commandLine(port, dir) {
  const relay = process.env.CONCORD_BIN
  if (relay) {
    const address = ["--host", "127.0.0.1", "--port", String(port)]
    return [relay, ["serve", ...address, "--data-dir", dir, "--no-admin"]]
  }
  const script = process.env.CONCORD_JS_SERVER
  if (!script) {
    throw new Error("set CONCORD_BIN to the relay's program, or run `cargo xtask test`")
  }
  const reference = fileURLToPath(new URL("reference-server.mjs", import.meta.url))
  return [process.execPath, [script === "reference" ? reference : script]]
}
