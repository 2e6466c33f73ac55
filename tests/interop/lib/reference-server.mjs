// The smallest sync server that automerge-repo's own packages make: what the tests are checked
// against, never part of the product. CONCORD_REFERENCE names another generation than 2.5.
import { once } from "node:events"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"
import { load } from "./clients.mjs"

const { repo: library, websocket } = await load(process.env.CONCORD_REFERENCE ?? "current")
const storage = new NodeFSStorageAdapter(process.env.DATA_DIR)
// On a first start the Repo and a caller of storageId() would each make one of their own.
const idKey = ["storage-adapter-id"]
if (!(await storage.load(idKey))) {
  await storage.save(idKey, new TextEncoder().encode(crypto.randomUUID()))
}
const sockets = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT) })
const listening = once(sockets, "listening")
const repo = new library.Repo({
  network: [new (websocket.WebSocketServerAdapter ?? websocket.NodeWSServerAdapter)(sockets)],
  storage,
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: true,
})
// It takes connections before it can welcome them; only the test of that should meet it.
await repo.storageId()
await listening
console.log(`listening on port ${process.env.PORT}`)
process.on("SIGTERM", () => process.exit(0))
