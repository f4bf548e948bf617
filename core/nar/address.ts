/** Addresses as octets and as text: dotted quads, and RFC 5952 for IPv6. */

/** '' for no address. Any other length than 0, 4 or 16 octets is a programming error. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 0) return '';
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length !== 16) throw new RangeError(`an address has 0, 4 or 16 octets, not ${bytes.length}`);
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((bytes[i]! << 8) | bytes[i + 1]!);
  // RFC 5952 section 5: the IPv4 part of a mapped address is written as a dotted quad.
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) return `::ffff:${addressText(bytes.subarray(12))}`;
  const { start, length } = longestZeros(groups);
  const text = (part: number[]) => part.map((group) => group.toString(16)).join(':');
  return length < 2 ? text(groups) : `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`;
}

/** The first of the longest runs of zero groups (RFC 5952 section 4.2). */
function longestZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  groups.forEach((group, i) => {
    if (group !== 0) start = i + 1;
    else if (i + 1 - start > best.length) best = { start, length: i + 1 - start };
  });
  return best;
}

/** '' gives no octets. A mapped address stays one of 16 octets. @throws RangeError for anything that is no address */
export function addressBytes(text: string): Buffer {
  if (text === '') return Buffer.alloc(0);
  return text.includes(':') ? v6Bytes(text) : v4Bytes(text);
}

function v4Bytes(text: string): Buffer {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) throw notAnAddress(text);
  return Buffer.from(parts.map(Number));
}

function v6Bytes(text: string): Buffer {
  const halves = text.split('::');
  if (halves.length > 2) throw notAnAddress(text);
  const [head, tail] = halves.map((half) => groupsOf(half, text)) as [number[], number[] | undefined];
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (tail === undefined ? missing !== 0 : missing < 1) throw notAnAddress(text);
  const bytes = Buffer.alloc(16);
  [...head, ...new Array(tail === undefined ? 0 : missing).fill(0), ...(tail ?? [])].forEach((group, i) => {
    bytes.writeUInt16BE(group, 2 * i);
  });
  return bytes;
}

function groupsOf(half: string, whole: string): number[] {
  if (half === '') return [];
  const parts = half.split(':');
  return parts.flatMap((part, i) => {
    if (part.includes('.') && i === parts.length - 1) {
      const quad = v4Bytes(part);
      return [quad.readUInt16BE(0), quad.readUInt16BE(2)];
    }
    if (!/^[0-9a-fA-F]{1,4}$/.test(part)) throw notAnAddress(whole);
    return [Number.parseInt(part, 16)];
  });
}

function notAnAddress(text: string): RangeError {
  return new RangeError(`${JSON.stringify(text)} is no IP address`);
}
