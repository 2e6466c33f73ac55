// Records what the real JavaScript packages write. README.md says how to run it.
//
//   node record.mjs frames     one session of automerge-repo over WebSockets: every frame
//   node record.mjs changes    the changes of one document: every change chunk
//   node record.mjs changes1   the same with the pure JavaScript automerge 1.0.1
//
// Prints lines of a name and bytes in hex. Recorded with
//   frames:   @automerge/automerge-repo and -network-websocket 1.2.1, 2.5.6, 2.6.0-alpha.3; ws 8
//   changes:  @automerge/automerge 2.0.3, 2.1.13, 2.2.9, 3.5.0
//   changes1: automerge 1.0.1-preview.7

import { readFileSync } from "node:fs"

const NOWHERE = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"
const version = name =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version
const line = (name, bytes) => console.log(`${name} ${Buffer.from(bytes).toString("hex")}`)
const until = async (what, holds) => {
  for (let turn = 0; !(await holds()); turn++) {
    if (turn === 500) throw new Error(`waited too long for ${what}`)
    await new Promise(next => setTimeout(next, 10))
  }
}

async function frames() {
  const { Repo } = await import("@automerge/automerge-repo")
  const sockets = await import("@automerge/automerge-repo-network-websocket")
  const { WebSocketServer, WebSocket } = await import("ws")
  // 2.6 expects what Node 22 has.
  globalThis.WebSocket ??= WebSocket
  Promise.withResolvers ??= () => {
    const made = {}
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
    return made
  }
  const text = handle => (old ? handle.docSync() : handle.doc())?.text
  const old = version("@automerge/automerge-repo").startsWith("1.")
  const Client = sockets.WebSocketClientAdapter ?? sockets.BrowserWebSocketClientAdapter
  const Server = sockets.WebSocketServerAdapter ?? sockets.NodeWSServerAdapter
  const memory = () => {
    const kept = new Map()
    const under = prefix => [...kept].filter(([key]) => key.startsWith(prefix.join("\u0001")))
    return {
      load: async key => kept.get(key.join("\u0001")),
      save: async (key, data) => void kept.set(key.join("\u0001"), data),
      remove: async key => void kept.delete(key.join("\u0001")),
      loadRange: async prefix =>
        under(prefix).map(([key, data]) => ({ key: key.split("\u0001"), data })),
      removeRange: async prefix => under(prefix).forEach(([key]) => kept.delete(key)),
    }
  }

  console.log(`# @automerge/automerge-repo ${version("@automerge/automerge-repo")}`)
  const sent = []
  const listener = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  listener.on("connection", socket => {
    socket.on("message", data => sent.push(["client", data]))
    const send = socket.send.bind(socket)
    socket.send = (data, ...rest) => {
      sent.push(["server", Buffer.from(data)])
      return send(data, ...rest)
    }
  })
  await until("the port", () => listener.address())
  const url = `ws://127.0.0.1:${listener.address().port}`
  const server = new Repo({
    network: [new Server(listener)],
    storage: memory(),
    peerId: "server",
    sharePolicy: async () => false,
    enableRemoteHeadsGossiping: true,
    // 2.6 refuses only after long thought, unless it was told to.
    denylist: old ? undefined : [NOWHERE],
  })
  const client = name =>
    new Repo({
      network: [new Client(url)],
      storage: memory(),
      peerId: name,
      enableRemoteHeadsGossiping: true,
    })
  const seen = (type, from) => sent.some(([side, data]) => side === from && data.includes(type))

  const alice = client("alice")
  const handle = alice.create()
  handle.change(doc => {
    doc.text = "hello"
    doc.list = [1, { two: 2 }]
  })
  await until("the first sync", () => seen("sync", "client") && seen("sync", "server"))

  const bob = client("bob")
  const found = await bob.find(handle.url)
  await until("the document", () => text(found) === "hello")
  found.change(doc => { doc.text += " world" })
  await until("the edit", () => text(handle) === "hello world")
  handle.broadcast({ cursor: 3 })
  await until("the broadcast", () => seen("ephemeral", "server"))

  // Not awaited: 2.6 waits longer than the refusal takes.
  Promise.resolve(bob.find(NOWHERE)).catch(() => {})
  await until("the refusal", () => seen("doc-unavailable", "server"))

  const storageId = await (alice.storageId?.() ?? alice.storageSubsystem.id())
  bob.subscribeToRemotes([storageId])
  await until("the subscription", () => seen("remote-subscription-change", "client"))
  handle.change(doc => { doc.text += "!" })
  await until("the heads", () => seen("remote-heads-changed", "server"))

  sent.forEach(([side, data]) => line(side, data))
  process.exit(0)
}

/** One document with everything that changes are made of. `edit` runs one change of one actor. */
function story({ start, edit, merge, text, counter, mark, increment }) {
  const [a, b] = ["aa".repeat(16), "0b".repeat(16)]
  let one = start(a)
  let two = start(b)
  const first = (name, fn) => { one = edit(one, name, fn) }
  first("empty", null)
  first("text", doc => { doc.text = text("") })
  for (const letter of "hey") first(`letter-${letter}`, doc => insert(doc, doc.text.length, letter))
  first("emoji", doc => insert(doc, 1, "👋"))
  two = merge(two, one)
  two = edit(two, "other-actor", doc => insert(doc, 0, "x"))
  one = edit(one, "concurrent", doc => insert(doc, 0, "y"))
  one = merge(one, two)
  first("delete", doc => remove(doc, 1, 2))
  first("values", doc => {
    Object.assign(doc, {
      t: true, f: false, n: null, int: -7, big: 2 ** 40, float: 0.1, date: new Date(1e12),
      bytes: new Uint8Array([1, 2, 3]), string: "grüße", map: { deep: { er: [] } }, list: [1, [2]],
      nothing: "", counter: counter(5),
    })
  })
  first("increment", doc => increment(doc))
  first("map-delete", doc => { delete doc.map })
  first("list", doc => { doc.list.splice(0, 1, "a", "b"); doc.list[0] = { in: "list" } })
  first("conflict-resolved", doc => { doc.string = "again" })
  if (mark) first("mark", doc => mark(doc))
  first("big", doc => insert(doc, 0, "All the world's a stage. ".repeat(80)))
  first("keys", doc => { for (let i = 0; i < 60; i++) doc[`key${i}`] = `value ${i}` })
  for (let n = 1; n <= 6; n++) {
    let other = merge(start(`${n}${n}`.repeat(16)), one)
    other = edit(other, `actor-${n}`, doc => {
      insert(doc, n, "z")
      doc.string = `by ${n}`
    })
    one = merge(one, other)
  }
  first("many-actors", doc => {
    doc.string = "settled"
    remove(doc, 0, 12)
  })

  function insert(doc, at, what) { text.insert(doc, at, what) }
  function remove(doc, at, count) { text.remove(doc, at, count) }
}

async function changes() {
  const stable = await import("@automerge/automerge")
  const A = stable.next ?? stable
  console.log(`# @automerge/automerge ${version("@automerge/automerge")}`)
  // From 2.1 on texts are strings of `next`; before, objects of their own.
  const strings = A.splice !== undefined
  const text = start => (strings ? start : new A.Text(start))
  text.insert = (doc, at, what) =>
    strings ? A.splice(doc, ["text"], at, 0, what) : doc.text.insertAt(at, ...what)
  text.remove = (doc, at, count) =>
    strings ? A.splice(doc, ["text"], at, count) : doc.text.deleteAt(at, count)
  story({
    start: actor => A.init({ actor }),
    edit: (doc, message, fn) => {
      const options = { message, time: 1_700_000_000 }
      const after = fn ? A.change(doc, options, fn) : A.emptyChange(doc, options)
      const change = A.getLastLocalChange(after)
      line(message, change)
      return after
    },
    merge: (into, from) => A.merge(into, A.clone(from)),
    text,
    counter: from => new A.Counter(from),
    increment: doc => doc.counter.increment(3),
    mark: A.mark && (doc => A.mark(doc, ["text"], { start: 0, end: 3, expand: "both" }, "bold", true)),
  })
}

async function changes1() {
  const { default: A } = await import("automerge")
  console.log(`# automerge ${version("automerge")}`)
  const text = start => new A.Text(start)
  text.insert = (doc, at, what) => doc.text.insertAt(at, ...what)
  text.remove = (doc, at, count) => doc.text.deleteAt(at, count)
  story({
    start: actor => A.init({ actorId: actor }),
    edit: (doc, message, fn) => {
      const options = { message, time: 1_700_000_000 }
      const after = fn ? A.change(doc, options, fn) : A.emptyChange(doc, options)
      line(message, A.getLastLocalChange(after))
      return after
    },
    merge: (into, from) => A.merge(into, from),
    text,
    counter: from => new A.Counter(from),
    increment: doc => doc.counter.increment(3),
  })
}

await { frames, changes, changes1 }[process.argv[2]]()
