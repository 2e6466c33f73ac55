// The smallest server made of automerge-repo: the WebSocket adapter, the file system, and the
// share policy of the published sync server. PORT (0 or absent: any free one) and DATA_DIR are
// read as that server reads them; the address is printed when it listens.
import { mkdirSync } from "node:fs"
import { createServer } from "node:http"

import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

const directory = process.env.DATA_DIR ?? ".amrg"
mkdirSync(directory, { recursive: true })

const sockets = new WebSocketServer({ noServer: true })
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(directory),
  peerId: "automerge-repo-server",
  sharePolicy: async () => false,
})

// Connections accepted before the storage id is loaded would never be answered.
await repo.storageId()

const server = createServer((_, response) => response.end("listening\n"))
server.on("upgrade", (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, accepted => {
    sockets.emit("connection", accepted, request)
  })
})
server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  console.log(`Listening on ws://127.0.0.1:${server.address().port}`)
})
