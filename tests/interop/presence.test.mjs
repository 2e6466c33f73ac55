// The Presence class of automerge-repo and the peer of Concord see one another: who comes, moves and goes.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { test } from "node:test"
import { Presence } from "@automerge/automerge-repo"
import { isConcord } from "./lib/server.mjs"
import { findWhenUploaded } from "./lib/uploaded.mjs"
import { until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

/** `concord presence` as a process, and what it printed last. */
function watcher(t, world, url, args) {
  const child = spawn(
    process.env.CONCORD_BIN,
    ["presence", url, "--json", "--url", world.server.url, ...args],
    { env: { ...process.env, CONCORD_DIR: world.directory() }, stdio: ["ignore", "pipe", "inherit"] },
  )
  t.after(() => child.kill("SIGKILL"))
  const seen = { child, present: undefined }
  createInterface({ input: child.stdout }).on("line", line => {
    seen.present = JSON.parse(line).present
  })
  return seen
}

test("presence goes both ways", { timeout: 60_000, skip: !isConcord }, async t => {
  const world = await World.start(t)
  const client = await world.client()
  const handle = client.create({ title: "A" })
  const presence = new Presence({ handle })
  presence.start({ initialState: { user: "jane", field: "notes", mood: 7 }, heartbeatMs: 1_000 })
  t.after(() => presence.stop())
  const others = () => Object.values(presence.getPeerStates().value).map(({ value }) => value)

  // The relay has it: whoever asks before that is told that nobody has.
  await findWhenUploaded(await world.client(), handle.url)
  const concord = watcher(t, world, handle.url, [
    "--author", "ann", "--set", "field=title", "--set", 'cursor={"from":3}',
  ])
  await until("JavaScript to see Concord", () => others().length === 1)
  const { user, field, cursor, session } = others()[0]
  assert.deepEqual({ user, field, cursor }, { user: "ann", field: "title", cursor: { from: 3 } })
  assert.equal(typeof session, "string")
  await until("Concord to see JavaScript", () => concord.present?.length === 1)
  assert.deepEqual(
    (({ user, field, more }) => ({ user, field, more }))(concord.present[0]),
    { user: "jane", field: "notes", more: { mood: 7 } },
  )

  presence.broadcast("field", "title")
  await until("Concord to see a move", () => concord.present[0]?.field === "title")
  concord.child.kill("SIGINT")
  await once(concord.child, "exit")
  await until("JavaScript to hear the goodbye", () => others().length === 0)

  const late = watcher(t, world, handle.url, ["--watch"])
  await until("a newcomer to see JavaScript", () => late.present?.length === 1)
  assert.equal(others().length, 0, "who looks is not shown for that")
  presence.stop()
  await until("Concord to hear the goodbye", () => late.present.length === 0)
})
