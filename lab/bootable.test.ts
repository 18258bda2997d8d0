import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBootConfigs } from '../image/publish/boot-config.ts';
import { parseKernelLine } from './bootable.ts';

test('parseKernelLine() reads back what publishing wrote', () => {
  const args = ['panic=30', 'buildos.x="a b"', 'console=ttyS0'];
  for (const hosts of [{}, { '52:54:00:00:00:01': ['buildos.hostname=x'] }]) {
    const configs = formatBootConfigs({ buildId: '1', url: 'http://192.0.2.1', folder: 'versions/1', args, hosts });
    assert.deepEqual(parseKernelLine(configs.find((file) => file.path === 'boot.ipxe')?.content ?? ''), args);
  }
  assert.throws(() => parseKernelLine('#!ipxe\nboot\n'), RangeError);
});
