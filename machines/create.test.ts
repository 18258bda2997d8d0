import assert from 'node:assert/strict';
import { test } from 'node:test';
import { machineId } from './create.ts';
import { MACHINE_DEFINITIONS, readMachineDefinition } from './definition.ts';

const definition = readMachineDefinition('linux_debian_13-gcc_14');

test('machineId() does not depend on the order of packages, but on their versions and the definition', () => {
  const id = machineId(definition, ['gcc 14.2 amd64', 'make 4.4 amd64']);
  assert.match(id, /^trixie-[0-9a-f]{16}$/);
  assert.equal(machineId(definition, ['make 4.4 amd64', 'gcc 14.2 amd64']), id);
  assert.notEqual(machineId(definition, ['make 4.4 amd64', 'gcc 14.3 amd64']), id);
  const [, ...rest] = definition.properties;
  assert.notEqual(machineId({ ...definition, properties: rest }, ['gcc 14.2 amd64', 'make 4.4 amd64']), id);
});

test('readMachineDefinition() names what there is when asked for something else', () => {
  assert.throws(() => readMachineDefinition('windows_10'), {
    name: 'UnknownMachineError',
    hint: /linux_debian_13-gcc_14/,
  });
  assert.equal(new Set(MACHINE_DEFINITIONS.map(({ name }) => name)).size, MACHINE_DEFINITIONS.length);
});
