// The demo page: a publisher on the left, subscribers on the right, each with a connection of its own.

const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/connection/websocket`;
const byId = (id) => document.getElementById(id);
const channel = () => byId("channel").value.trim() || "demo";
// Both ends are in this page, so one clock measures the way through the server.
const now = () => performance.timeOrigin + performance.now();
const ms = (from) => `${Math.max(0, now() - from).toFixed(1)} ms`;

// === what is on the screen ===

function line(log, body, aside, kind) {
  const item = document.createElement("li");
  item.className = kind;
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  const [text, more] = [document.createElement("span"), document.createElement("span")];
  text.className = "body";
  text.textContent = body;
  more.className = "aside";
  more.textContent = aside;
  item.append(time, text, more);
  log.prepend(item);
  while (log.children.length > 200) log.lastChild.remove();
}

function showState(element, state, why) {
  element.dataset.state = state;
  element.textContent = why ? `${state}, ${why}` : state;
}

// A server that was started again has new keys, and the page that it serves has a new token.
function ended(code) {
  const last = Number(sessionStorage.getItem("reloaded") ?? 0);
  if (code !== 3500 || Date.now() - last < 10_000) return;
  sessionStorage.setItem("reloaded", Date.now());
  location.reload();
}

// === left ===

const publisherLog = byId("publisher-log");
const publisher = new Connection(url, DEV.token, {
  onState(state, why) {
    showState(document.querySelector("#publisher [data-role=state]"), state, why);
    byId("publish").disabled = state !== "connected";
    if (state === "connected") byId("about").textContent = `${publisher.version ?? DEV.version}, embedded memory engine`;
  },
  onEnded: ended,
});

byId("publish-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = byId("message").value;
  const sent = now();
  try {
    await publisher.publish(channel(), { text, sent_at: Math.round(sent * 10) / 10 });
    line(publisherLog, text, `to ${channel()}, accepted in ${ms(sent)}`, "new");
  } catch (error) {
    line(publisherLog, error.message, "", "failed");
  }
  byId("message").select();
});

// === right ===

const MOST_SUBSCRIBERS = 4;
const subscribers = [];

function addSubscriber() {
  const card = byId("card").content.cloneNode(true).firstElementChild;
  const part = (role) => card.querySelector(`[data-role=${role}]`);
  let count = 0;
  const connection = new Connection(url, DEV.token, {
    onState(state, why) {
      showState(part("state"), state, why);
      part("toggle").textContent = state === "disconnected" ? "Connect" : "Disconnect";
    },
    onSubscribed(name, { recovered, was_recovering, offset }) {
      const gap = was_recovering ? (recovered ? ", nothing missed" : ", something may be missing") : "";
      line(part("log"), `subscribed to ${name}${gap}`, "", "note");
      if (offset) part("offset").textContent = offset;
    },
    onFailed: (name, error) => line(part("log"), `${name}: ${error.message}`, "", "failed"),
    onPublication({ data, offset, info }) {
      const latency = typeof data?.sent_at === "number" ? ms(data.sent_at) : null;
      part("count").textContent = ++count;
      part("offset").textContent = offset ?? "none";
      if (latency !== null) part("latency").textContent = latency;
      const body = latency !== null && typeof data.text === "string" ? data.text : JSON.stringify(data);
      const from = info ? `from ${info.user || "anonymous"}` : "from a backend";
      line(part("log"), body, latency === null ? from : `${from}, ${latency}`, "new");
    },
    onEnded: ended,
  });
  part("toggle").addEventListener("click", () => {
    if (connection.state === "disconnected") connection.connect();
    else connection.disconnect();
  });
  subscribers.push(connection);
  byId("cards").append(card);
  byId("add").hidden = subscribers.length >= MOST_SUBSCRIBERS;
  connection.follow(channel());
  connection.connect();
}

byId("add").addEventListener("click", addSubscriber);
byId("channel-form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const subscriber of subscribers) subscriber.follow(channel());
  showSnippet();
});

// === code to take away ===

const shellQuoted = (text) => (/^[\w:.-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
const SNIPPETS = {
  Browser: {
    hint: "npm install centrifuge. The token is for the user “dev” and counts until this server stops.",
    text: () => `import { Centrifuge } from 'centrifuge';

const client = new Centrifuge(${JSON.stringify(url)}, {
  token: ${JSON.stringify(DEV.token)},
});
const subscription = client.newSubscription(${JSON.stringify(channel())});
subscription.on('publication', (event) => console.log(event.data));
subscription.subscribe();
client.connect();`,
  },
  curl: {
    hint: "Run it in a terminal and look at the right side.",
    text: () => `curl ${location.origin}/api/publish \\
  -H 'X-API-Key: ${DEV.api_key}' \\
  -d ${shellQuoted(JSON.stringify({ channel: channel(), data: { text: "Hello from curl" } }))}`,
  },
  gRPC: {
    hint: "proto/proto/api.proto is the definition; every client generated for Centrifugo works.",
    text: () => `grpcurl -plaintext -import-path proto/proto -proto api.proto \\
  -H 'authorization: apikey ${DEV.api_key}' \\
  -d ${shellQuoted(JSON.stringify({ channel: channel(), data: btoa('{"text":"Hello from gRPC"}') }))} \\
  ${DEV.grpc} centrifugal.centrifugo.api.CentrifugoApi/Publish`,
  },
  Terminal: {
    hint: "The same program is a client too.",
    text: () => `${DEV.program} subscribe ${shellQuoted(channel())} --url ${url}

${DEV.program} publish ${shellQuoted(channel())} '{"text":"Hello from a terminal"}' \\
  --url ${location.origin}/api --key ${DEV.api_key}`,
  },
};
let shown = "Browser";

function showSnippet() {
  byId("snippet").textContent = SNIPPETS[shown].text();
  byId("snippet-hint").textContent = SNIPPETS[shown].hint;
  for (const tab of byId("tabs").children) tab.setAttribute("aria-selected", tab.textContent === shown);
}

for (const name of Object.keys(SNIPPETS)) {
  const tab = document.createElement("button");
  tab.type = "button";
  tab.className = "quiet";
  tab.role = "tab";
  tab.textContent = name;
  tab.addEventListener("click", () => {
    shown = name;
    showSnippet();
  });
  byId("tabs").append(tab);
}

byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("snippet").textContent);
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});

publisher.connect();
addSubscriber();
showSnippet();
