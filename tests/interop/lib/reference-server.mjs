// The smallest sync server that automerge-repo's own packages make: what the tests are checked
// against, never part of the product.
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

const sockets = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT) })
new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(process.env.DATA_DIR),
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: true,
})
sockets.on("listening", () => console.log(`listening on port ${sockets.address().port}`))
process.on("SIGTERM", () => process.exit(0))
