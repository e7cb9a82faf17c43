(function(){
var f=document.getElementById("filter"),q=f.querySelector("input"),b=f.querySelectorAll("button"),s="";
function show(){
var t=q.value.trim().toLowerCase();
document.querySelectorAll("[data-s]").forEach(function(e){
e.hidden=!!(s&&e.dataset.s!==s||t&&e.dataset.t.toLowerCase().indexOf(t)<0)});
document.querySelectorAll("[data-g]").forEach(function(e){
e.hidden=!e.querySelector("[data-s]:not([hidden])")});
b.forEach(function(e){e.setAttribute("aria-pressed",String(e.value===s))})}
b.forEach(function(e){e.addEventListener("click",function(){s=e.value;show()})});
q.addEventListener("input",show);
f.hidden=false;show()})();
