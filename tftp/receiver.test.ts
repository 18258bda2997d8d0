import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decodePacket, encodeData } from './packet.ts';
import { type ReceiverState, createReceiver, stepReceiver } from './receiver.ts';

for (const [name, lend] of [
  ['a Buffer', (bytes: Uint8Array) => Buffer.from(bytes.slice().buffer)],
  ['a Uint8Array', (bytes: Uint8Array) => bytes.slice()],
] as const) {
  test(`a block behind a gap is kept as it was, when the memory it came in is used again (${name})`, () => {
    let state: ReceiverState = createReceiver({
      opening: { kind: 'oack', options: [['windowsize', '4']] },
      granted: { windowsize: 4 },
      bytesMax: 4096,
      checkSize: false,
      dallyMs: 100,
    });
    const delivered: Uint8Array[] = [];
    const receive = (block: number, fill: string): void => {
      const datagram = lend(encodeData(block, Buffer.alloc(512, fill)));
      const step = stepReceiver(state, { kind: 'packet', packet: decodePacket(datagram), nowMs: 1 });
      for (const effect of step.effects) if (effect.kind === 'deliver') delivered.push(Uint8Array.from(effect.data));
      ({ state } = step);
      datagram.fill(0);
    };
    ({ state } = stepReceiver(state, { kind: 'start', nowMs: 0 }));
    receive(2, 'b');
    receive(3, 'c');
    receive(1, 'a');
    assert.equal(Buffer.concat(delivered).toString(), 'a'.repeat(512) + 'b'.repeat(512) + 'c'.repeat(512));
  });
}
