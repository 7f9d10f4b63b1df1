// Elements from descriptions. Text is always a text node, so outside text stays text.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Describes an element. Props: `key` to find it again among its siblings, `on…` for handlers,
 * `style` as an object of CSS properties, `value`, `checked`, and attributes.
 */
export function h(tag, props, ...children) {
  const kept = children.flat(Infinity).filter((child) => child != null && child !== false);
  return { tag, props: props ?? {}, children: kept };
}

/** Makes the children of `parent` what `children` describe. What is there is kept and changed. */
export function patch(parent, children) {
  const wanted = children.flat(Infinity).filter((child) => child != null && child !== false);
  const keys = new Set(wanted.map((child) => child.props?.key));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    if (node.key === undefined) continue;
    // Removed first: else those behind it would be moved, and lose the focus.
    if (keys.has(node.key)) keyed.set(node.key, node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const child of wanted) {
    let node = find(at, child, keyed);
    if (!node) node = make(parent, child);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    if (child.tag) update(node, child);
    else if (node.data !== String(child)) node.data = String(child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function find(at, child, keyed) {
  if (!child.tag) return at?.nodeType === Node.TEXT_NODE ? at : null;
  const { key } = child.props;
  if (key !== undefined) {
    const node = keyed.get(key);
    return node?.localName === child.tag ? node : null;
  }
  return at?.key === undefined && at?.localName === child.tag ? at : null;
}

function make(parent, child) {
  if (!child.tag) return document.createTextNode('');
  const inSvg = child.tag === 'svg' || parent.namespaceURI === SVG;
  const node = inSvg ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node.key = child.props.key;
  return node;
}

function update(node, { props, children }) {
  const before = node.props ?? {};
  for (const name of Object.keys(before)) if (!(name in props)) set(node, name, null, before[name]);
  for (const [name, value] of Object.entries(props)) set(node, name, value, before[name]);
  node.props = props;
  patch(node, children);
}

function set(node, name, value, before) {
  if (name === 'key') return;
  if (name.startsWith('on')) node[name] = value;
  else if (name === 'style') {
    // Through the CSSOM: the content security policy forbids the attribute.
    for (const property of Object.keys(before ?? {})) {
      if (!(property in (value ?? {}))) node.style.removeProperty(property);
    }
    for (const [property, text] of Object.entries(value ?? {})) {
      if (text !== before?.[property]) node.style.setProperty(property, text);
    }
  } else if (name === 'value' || name === 'checked') {
    if (value !== before && node[name] !== value) node[name] = value ?? '';
  } else if (value !== before) {
    if (value == null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? '' : value);
  }
}

const ICONS = {
  ok: 'M3 8.5 6.5 12 13 4.5',
  failed: 'M4 4l8 8M12 4l-8 8',
  partial: 'M3 8h10',
  running: 'M5 3.5v9l7-4.5z',
  waiting: 'M8 4v4l2.5 2M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0',
  retrying: 'M13 8a5 5 0 1 1-1.5-3.5M12 1.5v3.2H8.8',
  stalled: 'M5.5 4v8M10.5 4v8',
  skipped: 'M3 4l5 4-5 4zM9 4l5 4-5 4z',
  held: 'M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5',
  warning: 'M8 2 15 14H1zM8 6.5v3.5M8 12v.3',
  light: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1',
  dark: 'M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z',
  auto: 'M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12',
  key: 'M10.5 2.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8.4 7.6 2.5 13.5M4 12l1.5 1.5M6 10l1.5 1.5',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5 14 14',
};

/** Describes an icon. What it means is said beside it, so it is hidden from screen readers. */
export function icon(name, kind = '') {
  return h(
    'svg',
    { class: `icon ${kind}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    h('path', { d: ICONS[name] }),
  );
}
