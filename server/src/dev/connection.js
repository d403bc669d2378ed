// One connection that speaks the Centrifuge client protocol as JSON over a WebSocket: commands with ids, replies with the
// same ids, pushes without. It is here to show how little that is; applications take the official SDK.
//
// Callbacks: onState(state, why), onSubscribed(channel, result), onFailed(channel, error), onPublication(publication),
// onEnded(code) when it will not try again.
class Connection {
  #url;
  #token;
  #callbacks;
  #socket = null;
  #wanted = false;
  #attempt = 0;
  #retry = 0;
  #silence = 0;
  #lastId = 0;
  #waiting = new Map();
  #channel = null;
  #position = null;
  #state = "disconnected";
  #ping = 0;
  #pong = false;
  version = "";

  constructor(url, token, callbacks) {
    this.#url = url;
    this.#token = token;
    this.#callbacks = callbacks;
  }

  // Stays connected from now on, until disconnect() or until the server says that trying again is no use.
  connect() {
    this.#wanted = true;
    this.#open();
  }

  disconnect() {
    this.#end("by you");
  }

  // Subscribes to this channel instead of the one before, now or as soon as there is a connection.
  async follow(channel) {
    const before = this.#channel;
    if (channel === before) return;
    this.#channel = channel;
    this.#position = null;
    if (this.#state !== "connected") return;
    // When the connection is lost over it, the next one begins with the new channel.
    if (before !== null) await this.#ask({ unsubscribe: { channel: before } }).catch(() => {});
    if (channel === this.#channel && this.#state === "connected") await this.#subscribe();
  }

  // Resolves when the server has taken the publication; rejects with its error.
  publish(channel, data) {
    return this.#ask({ publish: { channel, data } });
  }

  get state() {
    return this.#state;
  }

  #setState(state, why) {
    this.#state = state;
    this.#callbacks.onState?.(state, why);
  }

  #open() {
    clearTimeout(this.#retry);
    this.#setState("connecting", this.#attempt === 0 ? "" : `attempt ${this.#attempt + 1}`);
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    // A server that does not answer is one that is not there.
    this.#silence = setTimeout(() => this.#lost(socket, "no answer"), 10_000);
    socket.onopen = () => this.#greet(socket);
    socket.onmessage = (event) => {
      if (socket === this.#socket) for (const line of event.data.split("\n")) this.#take(JSON.parse(line));
    };
    socket.onclose = (event) => this.#closed(socket, event);
  }

  async #greet(socket) {
    try {
      const { connect } = await this.#ask({ connect: { token: this.#token, name: "demo" } });
      this.#ping = connect.ping ?? 0;
      this.#pong = connect.pong ?? false;
      this.#attempt = 0;
      this.#heard();
      this.version = connect.version;
      this.#setState("connected", `client ${connect.client.slice(0, 8)}`);
      if (this.#channel !== null) await this.#subscribe();
    } catch (error) {
      if (socket === this.#socket) this.#lost(socket, error.message);
    }
  }

  async #subscribe() {
    const channel = this.#channel;
    const recover = this.#position === null ? {} : { recover: true, ...this.#position };
    try {
      const { subscribe } = await this.#ask({ subscribe: { channel, ...recover } });
      if (channel !== this.#channel) return;
      this.#position = subscribe.recoverable ? { epoch: subscribe.epoch, offset: subscribe.offset ?? 0 } : null;
      this.#callbacks.onSubscribed?.(channel, subscribe);
      for (const publication of subscribe.publications ?? []) this.#publication(publication);
    } catch (error) {
      this.#callbacks.onFailed?.(channel, error);
    }
  }

  #ask(command) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) return reject(new Error("not connected"));
      this.#waiting.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ id, ...command }));
    });
  }

  #take(reply) {
    this.#heard();
    if (reply.id) {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if (reply.error) waiting?.reject(new Error(`${reply.error.message} (${reply.error.code})`));
      else waiting?.resolve(reply);
    } else if (reply.push?.pub) {
      if (reply.push.channel === this.#channel) this.#publication(reply.push.pub);
    } else if (reply.push?.unsubscribe) {
      // From 2500 on the server asks to subscribe again.
      const { code, reason } = reply.push.unsubscribe;
      if (code >= 2500) this.#subscribe();
      else this.#callbacks.onFailed?.(reply.push.channel, new Error(`${reason} (${code})`));
    } else if (!reply.push && this.#pong) {
      this.#socket.send("{}");
    }
  }

  #publication(publication) {
    if (this.#position !== null && publication.offset) this.#position.offset = publication.offset;
    this.#callbacks.onPublication?.(publication);
  }

  // The server pings; when it stops doing so, the connection is dead even if nobody closed it.
  #heard() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    if (this.#ping > 0) this.#silence = setTimeout(() => this.#lost(socket, "no ping"), this.#ping * 1000 + 10_000);
  }

  #closed(socket, { code, reason }) {
    if (socket !== this.#socket) return;
    // Client protocol: these codes end a client for good; it must not come again by itself.
    const forGood = (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
    const why = code >= 3000 ? `${reason} (${code})` : "connection lost";
    if (forGood) this.#end(why, code);
    else this.#lost(socket, why);
  }

  #lost(socket, why) {
    this.#drop(socket, why);
    if (!this.#wanted) return;
    // A random part of a growing delay: a thousand pages do not come back in the same instant.
    const longest = Math.min(20_000, 400 * 2 ** this.#attempt++);
    const delay = longest / 2 + Math.random() * (longest / 2);
    this.#setState("connecting", `${why}; again in ${(delay / 1000).toFixed(1)} s`);
    this.#retry = setTimeout(() => this.#open(), delay);
  }

  #end(why, code) {
    this.#wanted = false;
    clearTimeout(this.#retry);
    if (this.#socket) this.#drop(this.#socket, why);
    this.#setState("disconnected", why);
    this.#callbacks.onEnded?.(code);
  }

  #drop(socket, why) {
    clearTimeout(this.#silence);
    if (socket === this.#socket) this.#socket = null;
    socket.close();
    for (const { reject } of this.#waiting.values()) reject(new Error(why));
    this.#waiting.clear();
  }
}
