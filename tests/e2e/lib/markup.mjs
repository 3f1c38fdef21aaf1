// Texts that would run as a script wherever a page took them for markup, an address, a style or a template.
const RUN = "window.__ran=1";

/** Each says by its number which one ran. */
export const MARKUP = [
  `<script>${RUN}</script>`, `<SCRIPT>${RUN}//</SCRIPT>`, `"><script>${RUN}</script>`, `'><script>${RUN}</script>`, `</title><script>${RUN}</script>`,
  `</textarea><script>${RUN}</script>`, `</script><script>${RUN}</script>`, `--><script>${RUN}</script>`, `]]><script>${RUN}</script>`, `<img src=x onerror=${RUN}>`,
  `"><img src=x onerror=${RUN}>`, `<img src=x:x onerror=${RUN}//`, `<img/src="x"/onerror="${RUN}">`, `<svg onload=${RUN}>`, `<svg/onload=${RUN}>`, `<svg><script>${RUN}</script></svg>`,
  `<svg><animate onbegin=${RUN} attributeName=x>`, `<math><mi//xlink:href="javascript:${RUN}">`, `<body onload=${RUN}>`, `<iframe src="javascript:parent.__ran=1">`,
  `<iframe srcdoc="<script>parent.__ran=1</script>">`, `<object data="javascript:${RUN}">`, `<embed src="javascript:${RUN}">`, `<a href="javascript:${RUN}" autofocus onfocus=${RUN}>x</a>`,
  `<input autofocus onfocus=${RUN}>`, `<details open ontoggle=${RUN}>`, `<video><source onerror=${RUN}>`, `<audio src=x onerror=${RUN}>`, `<marquee onstart=${RUN}>`, `<style>@import '//evil.invalid/x'</style>`,
  `<link rel=stylesheet href=//evil.invalid/x>`, `<base href=//evil.invalid/>`, `<meta http-equiv=refresh content="0;url=//evil.invalid/">`, `<form action=//evil.invalid><button autofocus>`,
  `" autofocus onfocus=${RUN} x="`, `' onmouseover=${RUN} x='`, `javascript:${RUN}`, `{{constructor.constructor('${RUN}')()}}`, "${" + RUN + "}", `&lt;script&gt;${RUN}&lt;/script&gt;`,
  `&#60;script&#62;${RUN}&#60;/script&#62;`, `\\u003cscript\\u003e${RUN}\\u003c/script\\u003e`, `%3Cscript%3E${RUN}%3C%2Fscript%3E`, `<noscript><p title="</noscript><img src=x onerror=${RUN}>">`,
  `<template><script>${RUN}</script></template>`, `<x contenteditable onblur=${RUN}>`, `[x](javascript:${RUN})`, `<img src="//evil.invalid/pixel.gif">`,
];
