// "Is it on the server, and who else has it?": the signals that applications show to people.
import assert from "node:assert/strict"
import { test } from "node:test"
import { decodeHeads } from "@automerge/automerge-repo"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { converged } from "./lib/clients.mjs"
import { deadline, until } from "./lib/wait.mjs"
import { World } from "./lib/world.mjs"

const timeout = 60_000

/** Until the handle says that the storage has these heads. */
async function reported(handle, storageId, heads) {
  const same = () => handle.getSyncInfo(storageId)?.lastHeads.join() === heads().join()
  await until(`the heads at ${storageId}`, same, { handles: [handle] })
}

test("a client learns that the server has its edits", { timeout }, async t => {
  const world = await World.start(t)
  const alice = await world.client({ gossip: true })
  const { storageId } = (await world.raw()).welcome.peerMetadata
  alice.repo.subscribeToRemotes([storageId])
  const handle = alice.create({ n: 0 })
  for (let n = 1; n <= 3; n += 1) {
    const event = new Promise(resolve => handle.once("remote-heads", resolve))
    handle.change(doc => (doc.n = n))
    assert.equal((await deadline(10_000, "remote-heads", event)).storageId, storageId)
    await reported(handle, storageId, () => handle.heads())
  }
})

test("a client learns what another client's storage has", { timeout }, async t => {
  const world = await World.start(t)
  const storage = new NodeFSStorageAdapter(world.directory())
  const alice = await world.client({ gossip: true, storage })
  const bob = await world.client({ gossip: true })
  const hers = alice.create({ n: 0 })
  await (await world.raw()).sync(hers.documentId)
  const his = await bob.find(hers.url)
  const storageId = await alice.repo.storageId()
  bob.repo.subscribeToRemotes([storageId])
  for (let n = 1; n <= 3; n += 1) {
    hers.change(doc => (doc.n = n))
    await converged([hers, his], doc => doc.n === n)
    await reported(his, storageId, () => hers.heads())
  }
  // Hers has what he writes.
  his.change(doc => (doc.n = 4))
  await converged([hers, his], doc => doc.n === 4)
  await reported(his, storageId, () => his.heads())
})

test("heads are not told to who did not subscribe, nor after unsubscribing", { timeout }, async t => {
  const world = await World.start(t)
  const storageId = crypto.randomUUID()
  const source = await world.raw({ storageId })
  const writer = await world.client()
  const handle = writer.create({ n: 0 })
  const { documentId } = handle
  await source.sync(documentId)
  source.received.length = 0
  const [stranger, former, subscriber] = [await world.raw(), await world.raw(), await world.raw()]
  for (const peer of [stranger, former, subscriber]) await peer.sync(documentId)
  former.send({ type: "remote-subscription-change", add: [storageId] })
  subscriber.send({ type: "remote-subscription-change", add: [storageId] })
  former.send({ type: "remote-subscription-change", remove: [storageId] })
  for (const peer of [former, subscriber]) {
    await peer.sync(documentId)
    // Subscribing may have been answered with what was known then.
    peer.received.length = 0
  }

  handle.change(doc => (doc.n = 1))
  const heads = decodeHeads(handle.heads()).join()
  const isNewest = told =>
    told.documentId === documentId &&
    decodeHeads(told.newHeads[storageId]?.heads ?? []).join() === heads
  await source.next("sync", { matching: message => message.documentId === documentId })
  await source.sync(documentId)
  const told = await subscriber.next("remote-heads-changed", { matching: isNewest })
  assert.equal(typeof told.newHeads[storageId].timestamp, "number")
  for (const peer of [stranger, former]) {
    await peer.sync(documentId)
    assert.deepEqual(peer.received.filter(m => m.type === "remote-heads-changed"), [])
  }
})
