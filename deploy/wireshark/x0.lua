-- SPDX-License-Identifier: Apache-2.0
--
-- Wireshark dissector of x0's frames (docs/wire-format.md). UDP port 7430; other ports: Decode As, x0.
--   wireshark -X lua_script:deploy/wireshark/x0.lua, or copy it to the personal plugins (Help, About, Folders).
-- QUIC datagrams inside HELLO and CONTROL go to Wireshark's own dissector. Ciphertext stays what it is: the keys of DATA
-- are exported from TLS and nowhere written. A frame that a host would drop for its form carries expert info "x0.malformed".

local x0 = Proto("x0", "x0 mesh")

local types = {
	[0x01] = "KNOCK", [0x02] = "COOKIE", [0x03] = "HELLO",
	[0x10] = "CONTROL", [0x11] = "DATA", [0x12] = "PROBE",
}
local kinds = {
	[1] = "ping", [2] = "pong", [3] = "challenge", [4] = "response", [5] = "MTU", [6] = "MTU confirmed",
}
local MTU = 5
local HOP, HELLO, PROBE, QUIC_MAX = 32, 20, 56, 1200

local f = {
	type = ProtoField.uint8("x0.type", "Type", base.HEX, types),
	version = ProtoField.uint8("x0.version", "Version"),
	flags = ProtoField.uint8("x0.flags", "Flags", base.HEX),
	join = ProtoField.bool("x0.flags.join", "Join", 8, nil, 0x01),
	reply = ProtoField.bool("x0.flags.reply", "From the answering side", 8, nil, 0x01),
	nonce = ProtoField.uint64("x0.nonce", "Nonce", base.HEX),
	key_id = ProtoField.bytes("x0.key_id", "Key id"),
	mac = ProtoField.bytes("x0.mac", "MAC"),
	epoch = ProtoField.uint8("x0.epoch", "Epoch of the cookie secret"),
	cookie = ProtoField.uint64("x0.cookie", "Cookie", base.HEX),
	ttl = ProtoField.uint8("x0.ttl", "TTL"),
	flow = ProtoField.uint16("x0.flow", "Flow hash", base.HEX),
	link = ProtoField.uint32("x0.link", "Link index", base.HEX),
	dst = ProtoField.uint64("x0.dst", "Destination label", base.HEX),
	src = ProtoField.uint64("x0.src", "Source label", base.HEX),
	tag = ProtoField.uint64("x0.tag", "Hop tag", base.HEX),
	session = ProtoField.uint32("x0.session", "Session index", base.HEX),
	worker = ProtoField.uint32("x0.worker", "Worker", base.DEC, nil, 0x000000ff),
	counter = ProtoField.uint64("x0.counter", "Counter"),
	ciphertext = ProtoField.bytes("x0.ciphertext", "Ciphertext"),
	aead_tag = ProtoField.bytes("x0.aead_tag", "AEAD tag"),
	kind = ProtoField.uint8("x0.probe.kind", "Kind", base.DEC, kinds),
	size = ProtoField.uint16("x0.probe.size", "Size"),
	seq = ProtoField.uint32("x0.probe.seq", "Sequence"),
	data = ProtoField.uint64("x0.probe.data", "Data", base.HEX),
	padding = ProtoField.bytes("x0.probe.padding", "Padding"),
}
x0.fields = {}
for _, field in pairs(f) do table.insert(x0.fields, field) end

local malformed = ProtoExpert.new("x0.malformed", "Malformed: a host drops this frame", expert.group.MALFORMED,
	expert.severity.ERROR)
local keepalive = ProtoExpert.new("x0.keepalive", "Keepalive", expert.group.COMMENTS_GROUP, expert.severity.CHAT)
x0.experts = { malformed, keepalive }

-- One frame being read: `at` never passes `n`, so that a short frame shows the fields it still has and says what lacks.
local Frame = {}
Frame.__index = Frame

function Frame.bad(self, what)
	if not self.is_bad then self.tree:add_proto_expert_info(malformed, what) end
	self.is_bad = true
end

function Frame.take(self, count)
	if self.is_bad then return nil end
	if self.n - self.at < count then
		self:bad(string.format("Shorter than its type needs: %d bytes", self.n))
		return nil
	end
	self.at = self.at + count
	return self.buf(self.at - count, count)
end

-- Adds the next `count` bytes as a field; returns their range, nil when the frame ended.
function Frame.add(self, field, count)
	local r = self:take(count)
	if r then self.tree:add(field, r) end
	return r
end

function Frame.number(self, field, count)
	local r = self:add(field, count)
	return r and r:uint()
end

function Frame.zero(self, count, where)
	local r = self:take(count)
	if r and r:bytes():tohex():find("[^0]") then self:bad(where .. " is not zero") end
end

function Frame.version(self)
	local v = self:number(f.version, 1)
	if v and v ~= 1 then self:bad(string.format("Version %d", v)) end
end

function Frame.flags(self, bit)
	local r = self:add(f.flags, 1)
	if not r then return 0 end
	self.tree:add(bit, r)
	if r:uint() > 1 then self:bad("Unknown flags") end
	return r:uint()
end

function Frame.rest(self) return self.n - self.at end

function Frame.quic(self, pinfo, root)
	if self.is_bad then return end
	if self:rest() == 0 then return self:bad("No QUIC datagram in it") end
	if self:rest() > QUIC_MAX then self.tree:add_proto_expert_info(malformed, "QUIC datagram of more than 1200 bytes") end
	-- What its bytes provoke in that dissector must not cost us the frame.
	pcall(function() Dissector.get("quic"):call(self.buf(self.at):tvb(), pinfo, root) end)
end

local function hop(fr)
	fr:add(f.ttl, 1)
	fr:add(f.flow, 2)
	fr:add(f.link, 4)
	fr:add(f.dst, 8)
	fr:add(f.src, 8)
	fr:add(f.tag, 8)
end

local bodies = {
	[0x01] = function(fr)
		fr:version()
		local join = fr:flags(f.join) == 1
		fr:zero(1, "Byte 3")
		fr:add(f.nonce, 8)
		fr:add(f.key_id, 8)
		fr:zero(12, "Padding")
		fr:add(f.mac, 16)
		return join and ", join" or "", true
	end,
	[0x02] = function(fr)
		fr:version()
		fr:zero(1, "Byte 2")
		fr:add(f.epoch, 1)
		fr:add(f.nonce, 8)
		fr:add(f.cookie, 8)
		fr:zero(8, "Padding")
		return "", true
	end,
	[0x03] = function(fr, pinfo, root)
		fr:version()
		local reply = fr:flags(f.reply) == 1
		fr:add(f.epoch, 1)
		fr:add(f.nonce, 8)
		fr:add(f.cookie, 8)
		fr:quic(pinfo, root)
		return reply and ", answer" or ""
	end,
	[0x10] = function(fr, pinfo, root)
		hop(fr)
		fr:quic(pinfo, root)
		return ""
	end,
	[0x11] = function(fr)
		hop(fr)
		local session = fr:add(f.session, 4)
		if session then fr.tree:add(f.worker, session) end
		local counter = fr:add(f.counter, 8)
		local n = fr:rest() - 16
		if n > 0 then fr:add(f.ciphertext, n) end
		if fr:add(f.aead_tag, 16) and n == 0 then fr.tree:add_proto_expert_info(keepalive) end
		return counter and string.format(", session %08x, counter %s, %d bytes", session:uint(),
			tostring(counter:uint64()), math.max(n, 0)) or ""
	end,
	[0x12] = function(fr)
		hop(fr)
		local kind = fr:number(f.kind, 1)
		if kind and not kinds[kind] then fr:bad(string.format("Kind %d", kind)) end
		fr:zero(1, "Byte 33")
		local size = fr:number(f.size, 2)
		local seq = fr:number(f.seq, 4)
		fr:add(f.counter, 8)
		fr:add(f.data, 8)
		if kind == MTU and not fr.is_bad then
			if fr:rest() > 0 then fr:add(f.padding, fr:rest()) end
			if size ~= fr.n then fr:bad("Size is not the frame's length") end
		end
		return seq and string.format(", %s, sequence %u", kinds[kind], seq) or "", true
	end,
}

function x0.dissector(buf, pinfo, root)
	local n = buf:reported_len()
	local kind = buf:len() > 0 and buf(0, 1):uint()
	local tree = root:add(x0, buf())
	local fr = setmetatable({ buf = buf, n = buf:len(), at = 0, tree = tree }, Frame)
	local body = kind and bodies[kind]
	local info = ""

	pinfo.cols.protocol = "x0"
	pinfo.cols.info = ""
	if kind then fr:add(f.type, 1) end
	if buf:len() < n then
		-- Not the sender's fault: a snapshot length cut it.
		info = string.format(", %d of %d bytes captured", buf:len(), n)
	elseif not body then
		fr:bad(kind and string.format("Unknown type 0x%02x", kind) or "Empty")
	else
		local exact
		info, exact = body(fr, pinfo, root)
		if exact and not fr.is_bad and fr:rest() > 0 then fr:bad("Longer than its type allows") end
	end
	tree:append_text(string.format(", %s%s", types[kind] or "unknown", info))
	pinfo.cols.protocol = "x0"
	pinfo.cols.info:prepend(string.format("%s%s%s ", types[kind] or "Unknown type", info, fr.is_bad and " [malformed]" or ""))
	return n
end

DissectorTable.get("udp.port"):add(7430, x0)
